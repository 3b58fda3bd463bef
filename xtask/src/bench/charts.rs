//! A chart for each suite: how long each implementation takes, relative to this project's own.
use plotters::prelude::*;

use super::case::Suite;
use super::record::{OURS, Record};
use super::report::{Row, rows};
use crate::Result;

const WIDTH: u32 = 900;
const COLOURS: [RGBColor; 10] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(127, 127, 127),
    RGBColor(188, 189, 34),
    RGBColor(23, 190, 207),
    RGBColor(255, 127, 14),
];

/// The charts that `records` have enough for: the suite, and an SVG.
pub(crate) fn draw(records: &[Record]) -> Result<Vec<(Suite, String)>> {
    let mut charts = Vec::new();
    for suite in Suite::ALL {
        let rows: Vec<Row> = rows(records, suite, false)
            .into_iter()
            .filter(|row| row.time(OURS).is_some() && row.best_peer().is_some())
            .collect();
        if !rows.is_empty() {
            charts.push((suite, chart(suite, &rows).map_err(|error| format!("drawing a chart: {error}"))?));
        }
    }
    Ok(charts)
}

fn chart(suite: Suite, rows: &[Row]) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        for name in row.counting() {
            if name != OURS && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let ratio = |row: &Row, name: &str| Some(row.time(name)?.median / row.time(OURS)?.median);
    let ratios = || rows.iter().flat_map(|row| names.iter().filter_map(move |name| ratio(row, name)));
    let low = ratios().fold(0.9, f64::min) / 1.1;
    let high = ratios().fold(2.0, f64::max) * 1.1;

    let mut text = String::new();
    {
        // Room for the legend beside few rows.
        let height = 130 + 24 * (rows.len() as u32).max(4);
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(format!("{}: time relative to {OURS}", suite.name()), ("sans-serif", 18))
            .margin(10)
            .margin_right(190)
            .x_label_area_size(40)
            .y_label_area_size(230)
            .build_cartesian_2d((low..high).log_scale(), -0.5..rows.len() as f64 - 0.5)?;
        let label = |at: &f64| {
            let row = (rows.len() - 1) as f64 - at;
            let whole = row.fract().abs() < 1e-9 && row >= 0.0;
            whole.then(|| rows.get(row as usize)).flatten().map_or(String::new(), |row| row.case.to_string())
        };
        chart
            .configure_mesh()
            .x_desc("times as long (log)")
            .x_labels(6)
            .y_labels(rows.len() + 1)
            .y_label_formatter(&label)
            .x_label_formatter(&|x| format!("{x:.1}"))
            .light_line_style(RGBColor(240, 240, 240))
            .draw()?;
        let line = [(1.0, -0.5), (1.0, rows.len() as f64 - 0.5)];
        chart
            .draw_series([PathElement::new(line, BLACK.stroke_width(2))])?
            .label(OURS)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 12, y)], BLACK.stroke_width(2)));
        for (name, colour) in names.iter().zip(COLOURS.iter().cycle()) {
            let dots = rows.iter().enumerate().filter_map(|(at, row)| {
                let y = (rows.len() - 1 - at) as f64;
                Some(Circle::new((ratio(row, name)?, y), 5, colour.filled()))
            });
            chart
                .draw_series(dots)?
                .label(*name)
                .legend(move |(x, y)| Circle::new((x + 6, y), 5, colour.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::Coordinate(WIDTH as i32 - 410, 0))
            .legend_area_size(24)
            .background_style(WHITE.mix(0.9))
            .border_style(RGBColor(220, 220, 220))
            .draw()?;
        area.present()?;
    }
    Ok(text)
}
