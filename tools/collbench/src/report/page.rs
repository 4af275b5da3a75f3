//! The page around the charts: style, titles, legends and the figures as tables. It needs nothing from outside.

use super::chart::{Colours, Quantity, chart, classes, mark};
use super::scale::{decimal, size_name};
use super::{Panel, Run, Series, panels};

const STYLE: &str = include_str!("style.css");

/// How many colours the style has; more algorithms share them.
const COLOURS: usize = 9;

/// The whole page, well-formed as XML too.
pub(super) fn page(runs: &[Run]) -> String {
    let panels = panels(runs);
    let mut colours = Colours::new();
    for series in panels.iter().flat_map(|panel| panel.lines.keys()) {
        let next = colours.len() % COLOURS;
        colours.entry(series.algorithm.clone()).or_insert(next);
    }
    let runs: String = runs.iter().map(|run| format!("<p>{}</p>", escape(&run.summary()))).collect();
    let sections: String = panels.iter().map(|panel| section(panel, &colours)).collect();
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width\"/><title>sohu-collbench {version}</title>\
         <style>\n{STYLE}</style></head>\n<body>\n<header><h1>sohu-collbench {version}</h1>{runs}{}</header>\n\
         <main>{sections}</main>\n</body>\n</html>\n",
        reading()
    )
}

/// How to read the charts.
fn reading() -> String {
    let key = |inside: &str| {
        format!("<svg class=\"key\" viewBox=\"0 0 28 12\" aria-hidden=\"true\">{inside}</svg>")
    };
    let entries = [
        (format!("<g class=\"series c0\">{}</g>", mark("near", 14.0, 6.0)), "ranks' cores near, out of place"),
        (format!("<g class=\"series c0 far\">{}</g>", mark("far", 14.0, 6.0)), "far"),
        (format!("<g class=\"series c0 hollow\">{}</g>", mark("near", 14.0, 6.0)), "in place"),
        ("<g class=\"series c0\"><path class=\"line\" d=\"M2 6H26\"/></g>".into(), "private buffers"),
        ("<g class=\"series c0 registered\"><path class=\"line\" d=\"M2 6H26\"/></g>".into(), "registered"),
        ("<path class=\"limit\" d=\"M2 6H26\"/>".into(), "the limit of the machine"),
        (
            "<g class=\"series c0\"><path class=\"whisker\" d=\"M2 6H26\"/><path class=\"band\" d=\"M8 6H18\"/></g>".into(),
            "half of the calls, and up to p99",
        ),
    ];
    let items: String =
        entries.iter().map(|(inside, name)| format!("<li>{}{}</li>", key(inside), escape(name))).collect();
    format!(
        "<p>Marks are medians of single calls, of the slowest rank each. A limit is the hand-over of a cache line, or the \
         time that copying and folding the least bytes takes all ranks, whichever is longer.</p><ul class=\"legend\">{items}</ul>"
    )
}

fn section(panel: &Panel, colours: &Colours) -> String {
    let keys: String = panel.lines.keys().map(|series| legend(series, colours)).collect();
    format!(
        "<section><h2>{}</h2><div class=\"charts\">{}{}</div><ul class=\"legend\">{keys}</ul>{}</section>\n",
        escape(&panel.call.title()),
        chart(panel, Quantity::Time, colours),
        chart(panel, Quantity::Busbw, colours),
        table(panel)
    )
}

fn legend(series: &Series, colours: &Colours) -> String {
    let (look, mark) = (classes(series, colours), mark(&series.state, 14.0, 6.0));
    format!(
        "<li><svg class=\"key\" viewBox=\"0 0 28 12\" aria-hidden=\"true\"><g class=\"series {look}\">\
         <path class=\"line\" d=\"M2 6H26\"/>{mark}</g></svg>{}</li>",
        escape(&series.name())
    )
}

/// The figures behind the charts.
fn table(panel: &Panel) -> String {
    let mut rows = String::new();
    for (series, points) in &panel.lines {
        for point in points {
            let figures = [
                point.median,
                point.quarters[0],
                point.quarters[1],
                point.p99,
                point.busbw(point.median),
                point.limit,
            ];
            let cells: String =
                figures.iter().map(|figure| format!("<td>{}</td>", decimal(*figure))).collect();
            let (size, name) = (size_name(point.size), escape(&series.name()));
            rows += &format!("<tr><td>{size}</td><td>{name}</td>{cells}</tr>");
        }
    }
    format!(
        "<details><summary>Figures</summary><table><thead><tr><th>bytes</th><th>line</th><th>median (µs)</th>\
         <th>quarter (µs)</th><th>three quarters (µs)</th><th>p99 (µs)</th><th>busbw (GB/s)</th><th>limit (µs)</th></tr>\
         </thead><tbody>{rows}</tbody></table></details>"
    )
}

/// The text with what XML has a meaning for put in other words.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            // No such character can be in XML, however it is written.
            '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                escaped.push('\u{fffd}')
            }
            other => escaped.push(other),
        }
    }
    escaped
}
