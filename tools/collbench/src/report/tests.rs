use super::*;
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Value, json};

fn half(time: f64, state: &str, algorithm: &str) -> Value {
    json!({
        "time": time, "bus_bw": 2.0, "med_us": time, "p99_us": 3.0 * time, "limit_pct": 25.0,
        "state": state, "algorithm": algorithm,
    })
}

/// A report of one collective at three sizes, the last one by another algorithm and far.
fn run(program: &str, registered: &str) -> Run {
    let rows = [(8, "near", "ring<&>"), (4096, "near", "ring<&>"), (1 << 20, "far", "two_shot")];
    let results = rows.map(|(size, state, algorithm)| {
        let time = f64::from(size) / 7.0;
        let singles = json!({ "quantiles_us": [0.5 * time, 0.9 * time, time, 1.5 * time] });
        json!({
            "experiment_name": program, "type": "float", "redop": "sum", "root": "    -1", "size": size,
            "out_of_place": half(time, state, algorithm), "out_of_place_per_iter": singles,
            "in_place": half(time * 2.0, state, algorithm), "in_place_per_iter": singles,
        })
    });
    let report = json!({
        "start_time": "2026-11-22 13:45:18",
        "args": ["/some/where/sohu-collbench", "all_reduce", "--launched"],
        "config": {
            "transport": "shm", "ranks": 2, "registered": registered,
            "devices": [{ "hostname": "a<b", "device_info": "\"CPU\" & more" }],
        },
        "results": results,
    });
    serde_json::from_value(report).expect("a report")
}

fn parse(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).expect("the page is well-formed")
}

fn with_class<'a>(root: Node<'a, 'a>, class: &str) -> Vec<Node<'a, 'a>> {
    let has = |node: &Node<'_, '_>| {
        node.attribute("class").is_some_and(|classes| classes.split(' ').any(|word| word == class))
    };
    root.descendants().filter(has).collect()
}

#[test]
fn every_measured_half_is_a_point_in_both_charts_of_its_collective() {
    let page = page::page(&[
        run("all_reduce_perf", "false"),
        run("all_gather_perf", "false"),
        run("all_reduce_perf", "true"),
    ]);
    let document = parse(&page);
    let panels = with_class(document.root(), "panel");
    let counts: Vec<usize> = panels.iter().map(|panel| with_class(*panel, "point").len()).collect();
    // Rows times two halves: three rows of all-gather, six of all-reduce, each by time and by bandwidth.
    assert_eq!(counts, [6, 6, 12, 12]);
    for panel in &panels {
        // Near and far, out of place and in place, of each kind of buffers.
        let lines = with_class(*panel, "line").len();
        assert_eq!(lines * 3, 2 * with_class(*panel, "point").len());
        assert_eq!(with_class(*panel, "limit").len(), lines / 2);
        assert!(with_class(*panel, "series").iter().any(|line| !with_class(*line, "far").is_empty()));
    }
    let rows =
        document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/1999/xhtml", "tr")));
    assert_eq!(rows.count(), 2 + 6 + 12, "two heads and a row of figures for each point");
}

#[test]
fn every_place_is_a_number_inside_its_chart() {
    let mut odd = run("all_reduce_perf", "false");
    odd.results[0].out_of_place.limit_pct = f64::NAN;
    odd.results[1].out_of_place.p99_us = 1e12;
    odd.results[1].in_place = None;
    odd.results[2].out_of_place_per_iter = Singles::default();
    // Of one rank nothing moves between ranks.
    odd.results[2].out_of_place.bus_bw = 0.0;
    let page = page::page(&[odd]);
    let document = parse(&page);
    for panel in with_class(document.root(), "panel") {
        assert_eq!(with_class(panel, "point").len(), 5);
        for node in panel.descendants() {
            for attribute in node.attributes().filter(|a| ["cx", "cy", "x", "y", "d"].contains(&a.name())) {
                let numbers = attribute.value().split(|c: char| c.is_ascii_alphabetic() || c == ' ');
                for number in numbers.filter(|number| !number.is_empty()) {
                    let at: f64 = number.parse().unwrap_or_else(|_| panic!("{attribute:?}"));
                    assert!((0.0..=480.0).contains(&at), "{attribute:?}");
                }
            }
        }
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
}

#[test]
fn axes_have_names_with_units_and_nothing_comes_from_outside() {
    let page = page::page(&[run("all_reduce_perf", "false")]);
    for title in ["size (bytes)", "time of a call (µs)", "bus bandwidth (GB/s)", "prefers-color-scheme: dark"]
    {
        assert!(page.contains(title), "{title}");
    }
    let document = parse(&page);
    for node in document.descendants() {
        assert!(!["script", "link", "img", "iframe"].contains(&node.tag_name().name()), "{node:?}");
        assert!(node.attributes().all(|a| !["src", "href"].contains(&a.name())), "{node:?}");
    }
    assert!(!page.contains("url(") && !page.contains("@import"));
}

#[test]
fn names_of_others_are_text_and_no_markup() {
    let page = page::page(&[run("all_reduce_perf", "false")]);
    let document = parse(&page);
    let text: String = document.descendants().filter_map(|node| node.text()).collect();
    assert!(text.contains("on a<b, \"CPU\" & more: sohu-collbench all_reduce"), "{text}");
    assert!(text.contains("ring<&>, private, in place, near"), "{text}");
    assert_eq!(page::escape("a\u{1}\"<>&"), "a\u{fffd}&quot;&lt;&gt;&amp;");
}

#[test]
fn algorithms_that_take_turns_are_joined_by_a_thread_and_rivals_are_not() {
    let threads = |runs: &[Run]| {
        let page = page::page(runs);
        with_class(parse(&page).root(), "thread").len()
    };
    // Near and far, out of place and in place, in two charts.
    assert_eq!(threads(&[run("all_reduce_perf", "false")]), 8);
    let mut rival = run("all_reduce_perf", "false");
    rival.results.iter_mut().for_each(|entry| entry.out_of_place.algorithm = "tree".into());
    assert_eq!(threads(&[run("all_reduce_perf", "false"), rival]), 0);
}

#[test]
fn a_page_without_rows_is_well_formed_too() {
    let mut none = run("all_reduce_perf", "false");
    none.results.clear();
    let page = page::page(&[none]);
    assert!(with_class(parse(&page).root(), "panel").is_empty());
}

#[test]
fn what_a_page_replaces_stays_until_the_page_is_there() {
    let path = std::env::temp_dir().join(format!("sohu-collbench-page-{}.html", std::process::id()));
    std::fs::write(&path, "before ".repeat(100_000)).expect("a file");
    let target = Target::open(&path).expect("it can be written");
    assert!(std::fs::read_to_string(&path).expect("text").starts_with("before"));
    target.write(&[run("all_reduce_perf", "false")]).expect("it is written");
    let text = std::fs::read_to_string(&path).expect("text");
    std::fs::remove_file(&path).expect("the file is ours");
    assert!(text.starts_with("<!DOCTYPE html>") && text.ends_with("</html>\n"));
    let failure = Target::open(Path::new("/no/such/folder/page.html")).expect_err("no folder");
    assert!(failure.to_string().starts_with("no report can be written to /no/such/folder/page.html: "));
}
