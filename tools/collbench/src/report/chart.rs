//! One chart as SVG: lines, marks, bands and limits over logarithmic axes.

use super::page::escape;
use super::scale::{Axis, decimal, size_name};
use super::{Panel, Point, Series};
use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 320.0;
/// Where the axes lie: left, right, top, bottom.
const FRAME: [f64; 4] = [58.0, 468.0, 14.0, 272.0];

/// What a chart shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantity {
    /// Microseconds of a call.
    Time,
    /// Bus bandwidth in GB/s.
    Busbw,
}

impl Quantity {
    fn title(self) -> &'static str {
        match self {
            Self::Time => "time of a call (µs)",
            Self::Busbw => "bus bandwidth (GB/s)",
        }
    }

    /// The value for a call of the point's size that takes so long.
    fn of(self, point: &Point, time_us: f64) -> f64 {
        match self {
            Self::Time => time_us,
            Self::Busbw => point.busbw(time_us),
        }
    }
}

/// The colours of algorithms, by name, for a whole page.
pub(super) type Colours = BTreeMap<String, usize>;

/// The look of a line or mark: its classes.
pub(super) fn classes(series: &Series, colours: &Colours) -> String {
    let colour = colours.get(&series.algorithm).copied().unwrap_or(0);
    let buffers = if series.registered { " registered" } else { "" };
    let place = if series.in_place { " hollow" } else { "" };
    let state = if series.state == "far" { " far" } else { "" };
    format!("c{colour}{buffers}{place}{state}")
}

/// A mark: round when near, a triangle when far, a square when that is not known.
pub(super) fn mark(state: &str, x: f64, y: f64) -> String {
    match state {
        "near" => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\"/>"),
        "far" => {
            let (left, right, top, base) = (x - 4.0, x + 4.0, y - 4.4, y + 3.0);
            format!("<path d=\"M{left:.1} {base:.1}L{right:.1} {base:.1}L{x:.1} {top:.1}Z\"/>")
        }
        _ => format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"5.6\" height=\"5.6\"/>", x - 2.8, y - 2.8),
    }
}

/// A chart being drawn.
struct Chart<'a> {
    quantity: Quantity,
    x: Axis,
    y: Axis,
    colours: &'a Colours,
    svg: String,
}

/// Draws one quantity of a panel.
pub(super) fn chart(panel: &Panel, quantity: Quantity, colours: &Colours) -> String {
    let [left, right, top, bottom] = FRAME;
    let points = || panel.lines.values().flatten();
    // A p99 may be far off; it is cut at the frame rather than given most of the chart.
    let shown = points().flat_map(|point| {
        [point.median, point.quarters[0], point.quarters[1], point.limit].map(|time| quantity.of(point, time))
    });
    let x = Axis::over(points().map(|point| point.size), 2.0, [left, right]);
    let y = Axis::over(shown, 10.0, [bottom, top]);
    let mut chart = Chart { quantity, x, y, colours, svg: String::new() };
    let name = escape(&format!("{}: {} against size", panel.call.title(), quantity.title()));
    chart.put(format_args!(
        "<svg class=\"panel\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{name}\">"
    ));
    chart.axes();
    chart.limits(panel);
    chart.threads(panel);
    for (series, points) in &panel.lines {
        chart.series(series, points);
    }
    chart.svg + "</svg>"
}

impl Chart<'_> {
    fn put(&mut self, text: core::fmt::Arguments<'_>) {
        self.svg.write_fmt(text).expect("a string takes all that is written to it");
    }

    fn axes(&mut self) {
        let [left, right, top, bottom] = FRAME;
        self.put(format_args!("<g class=\"axes\">"));
        for (size, name) in self.x.sizes() {
            let x = self.x.at(size);
            self.put(format_args!(
                "<path class=\"grid\" d=\"M{x:.1} {top}V{bottom}\"/><text x=\"{x:.1}\" y=\"{}\" class=\"x\">{name}</text>",
                bottom + 16.0
            ));
        }
        for (value, name) in self.y.decades() {
            let y = self.y.at(value);
            self.put(format_args!(
                "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/><text x=\"{}\" y=\"{:.1}\" class=\"y\">{name}</text>",
                left - 6.0,
                y + 4.0
            ));
        }
        let (middle, title) = ((top + bottom) / 2.0, self.quantity.title());
        self.put(format_args!(
            "<path class=\"frame\" d=\"M{left} {top}V{bottom}H{right}\"/>\
             <text class=\"x\" x=\"{:.1}\" y=\"{}\">size (bytes)</text>\
             <text class=\"x\" transform=\"translate(14 {middle}) rotate(-90)\">{title}</text></g>",
            (left + right) / 2.0,
            bottom + 36.0
        ));
    }

    /// The limit of each kind of buffers in each state: the least time over both places.
    fn limits(&mut self, panel: &Panel) {
        let mut limits: BTreeMap<(bool, &str), Vec<&Point>> = BTreeMap::new();
        for (series, points) in &panel.lines {
            let there = points.iter().filter(|point| point.limit > 0.0);
            limits.entry((series.registered, &series.state)).or_default().extend(there);
        }
        for ((registered, state), mut points) in limits {
            points.sort_by(|a, b| a.size.total_cmp(&b.size).then(a.limit.total_cmp(&b.limit)));
            points.dedup_by_key(|point| point.size.to_bits());
            let places: Vec<[f64; 2]> = points.iter().map(|point| self.place(point, point.limit)).collect();
            let kind = if registered { " registered" } else { "" };
            let buffers = if registered { "registered" } else { "private" };
            let path = path(&places);
            self.put(format_args!(
                "<path class=\"limit{kind}\" d=\"{path}\"><title>limit of the machine, {buffers} buffers, {state}</title></path>"
            ));
        }
    }

    /// Where lines of several algorithms are one choice after another, a thread joins them.
    fn threads(&mut self, panel: &Panel) {
        let mut threads: BTreeMap<(bool, bool, &str), Vec<&Point>> = BTreeMap::new();
        for (series, points) in &panel.lines {
            let key = (series.registered, series.in_place, series.state.as_str());
            threads.entry(key).or_default().extend(points);
        }
        for mut points in threads.into_values() {
            points.sort_by(|a, b| a.size.total_cmp(&b.size));
            let sizes = points.chunk_by(|a, b| a.size == b.size);
            // Where algorithms were measured at the same sizes there is nothing to join.
            if sizes.clone().any(|same| same.len() > 1) {
                continue;
            }
            let places: Vec<[f64; 2]> = points.iter().map(|point| self.place(point, point.median)).collect();
            let path = path(&places);
            self.put(format_args!("<path class=\"thread\" d=\"{path}\"/>"));
        }
    }

    fn series(&mut self, series: &Series, points: &[Point]) {
        let look = classes(series, self.colours);
        // Through the middle of what was measured more than once.
        let middles: Vec<[f64; 2]> = points
            .chunk_by(|a, b| a.size == b.size)
            .map(|same| {
                let mut medians: Vec<f64> = same.iter().map(|point| point.median).collect();
                self.place(&same[0], crate::stats::median(&mut medians))
            })
            .collect();
        let line = path(&middles);
        self.put(format_args!("<g class=\"series {look}\"><path class=\"line\" d=\"{line}\"/>"));
        for point in points {
            self.point(series, point);
        }
        self.put(format_args!("</g>"));
    }

    fn point(&mut self, series: &Series, point: &Point) {
        let [x, y] = self.place(point, point.median);
        let [low, high] = point.quarters.map(|time| self.place(point, time)[1]);
        let p99 = self.place(point, point.p99)[1];
        let mark = mark(&series.state, x, y);
        let told = escape(&format!(
            "{} bytes, {}: median {} µs, quarters {} to {} µs, p99 {} µs, {} GB/s, {} % of the limit",
            size_name(point.size),
            series.name(),
            decimal(point.median),
            decimal(point.quarters[0]),
            decimal(point.quarters[1]),
            decimal(point.p99),
            decimal(point.busbw(point.median)),
            decimal((point.limit / point.median * 100.0).round()),
        ));
        self.put(format_args!(
            "<g class=\"point\"><title>{told}</title><path class=\"whisker\" d=\"M{x:.1} {y:.1}V{p99:.1}\"/>\
             <path class=\"band\" d=\"M{x:.1} {low:.1}V{high:.1}\"/>{mark}</g>"
        ));
    }

    fn place(&self, point: &Point, time_us: f64) -> [f64; 2] {
        [self.x.at(point.size), self.y.at(self.quantity.of(point, time_us))]
    }
}

/// A line through the places, left out where one is none.
fn path(places: &[[f64; 2]]) -> String {
    let there = places.iter().filter(|place| place.iter().all(|at| at.is_finite()));
    let steps = there.enumerate().map(|(step, [x, y])| {
        let verb = if step == 0 { 'M' } else { 'L' };
        format!("{verb}{x:.1} {y:.1}")
    });
    steps.collect()
}
