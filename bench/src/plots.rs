//! The plots in docs/performance.md.
use crate::{
    program::{Program, Route},
    report::{Report, cold_ms, own_cold_ms, p50_ms, p99_ms},
};
use anyhow::Result;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (960, 400);
const FONT: &str = "sans-serif";
/// One colour per series; they also differ in greyscale.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 90, 156),
    RGBColor(120, 120, 120),
    RGBColor(196, 78, 36),
    RGBColor(60, 140, 60),
    RGBColor(140, 90, 170),
    RGBColor(60, 170, 190),
    RGBColor(200, 160, 40),
];

/// Draws all plots into a folder.
///
/// # Errors
/// If a file cannot be written.
pub fn draw(report: &Report, folder: &Path) -> Result<()> {
    let measured = &report.direct;
    bars(
        &folder.join("deployed-cold-start.svg"),
        "Deployed cold start to the first answer, ms (logarithmic)",
        report,
        &[
            ("secret 10 ms away, database 2 ms away", Box::new(|it| report.deployed_median(it.name, cold_ms))),
            ("without the network's delays", Box::new(|it| report.deployed_median(it.name, own_cold_ms))),
        ],
    )?;
    bars(
        &folder.join("cold-start.svg"),
        "Cold start to the first answer, ms (logarithmic)",
        report,
        &[
            ("Init", Box::new(|it| measured.median(it.name, |trial| Some(trial.init_ms)))),
            ("first call", Box::new(|it| measured.median(it.name, |trial| Some(trial.first_ms)))),
        ],
    )?;
    bars(
        &folder.join("warm-list.svg"),
        "A warm list of 50 tasks, ms (logarithmic)",
        report,
        &[
            ("p50", Box::new(|it| measured.median(it.name, p50_ms(Route::List)))),
            ("p99", Box::new(|it| measured.median(it.name, p99_ms(Route::List)))),
            ("p50 at 128 MB", Box::new(|it| report.small.median(it.name, p50_ms(Route::List)))),
        ],
    )?;
    lines(&folder.join("network.svg"), report)
}

type Value<'r> = Box<dyn Fn(&Program) -> Option<f64> + 'r>;

/// Draws one group of bars per program.
fn bars(file: &Path, title: &str, report: &Report, series: &[(&str, Value)]) -> Result<()> {
    let programs: Vec<_> = report.programs.iter().collect();
    let values: Vec<Vec<Option<f64>>> =
        series.iter().map(|(_, value)| programs.iter().map(|program| value(program)).collect()).collect();
    let all = || values.iter().flatten().flatten().copied().filter(|value| *value > 0.0);
    if all().next().is_none() {
        return Ok(());
    }
    let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    let bottom = 10_f64.powf(least.log10().floor());

    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 18))
        .margin(10)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..programs.len() as f64, (bottom..most * 2.0).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_label_formatter(&|value| format!("{value}"))
        .label_style((FONT, 13))
        .draw()?;
    let width = 0.8 / series.len() as f64;
    for (index, ((name, _), values)) in series.iter().zip(&values).enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let bars = values.iter().enumerate().filter_map(|(place, value)| {
            let left = place as f64 + 0.1 + width * index as f64;
            Some(Rectangle::new([(left, bottom), (left + width * 0.92, (*value)?)], colour.filled()))
        });
        chart
            .draw_series(bars)?
            .label(*name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        let labels = values.iter().enumerate().filter_map(|(place, value)| {
            let value = (*value)?;
            let centre = place as f64 + 0.1 + width * (index as f64 + 0.46);
            let text = if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") };
            let style = (FONT, 12).into_font().color(&BLACK);
            Some(Text::new(text, (centre, value * 1.25), style.pos(middle())))
        });
        chart.draw_series(labels)?;
    }
    let names = programs.iter().enumerate().map(|(place, program)| {
        let style = (FONT, 13).into_font().color(&BLACK);
        let below = EmptyElement::at((place as f64 + 0.5, bottom));
        // In two lines, because long names do not fit next to each other.
        let (name, rest) = program.title.split_once(" + ").unwrap_or((program.title, ""));
        let rest = if rest.is_empty() { String::new() } else { format!("+ {rest}") };
        below + Text::new(name.to_owned(), (0, 8), style.pos(middle())) + Text::new(rest, (0, 24), style.pos(middle()))
    });
    chart.draw_series(names)?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.9))
        .label_font((FONT, 13))
        .draw()?;
    area.present()?;
    Ok(())
}

fn middle() -> plotters::style::text_anchor::Pos {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    Pos::new(HPos::Center, VPos::Top)
}

/// Draws the list's p50 by the latency that the network adds to a round trip.
fn lines(file: &Path, report: &Report) -> Result<()> {
    let points = |program: &Program| -> Vec<(f64, f64)> {
        report
            .delayed
            .iter()
            .filter_map(|(ms, it)| Some((*ms, it.median(program.name, p50_ms(Route::List))?)))
            .collect()
    };
    let most = report.programs.iter().flat_map(points).map(|(_, value)| value).fold(0.0, f64::max);
    let longest = report.delayed.iter().map(|(ms, _)| *ms).fold(0.0, f64::max);

    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("A warm list by the network's round trip to the database, p50 in ms", (FONT, 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..longest, 0.0..most * 1.05)?;
    chart.configure_mesh().x_desc("ms added to each round trip").label_style((FONT, 13)).draw()?;
    for (index, program) in report.programs.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        chart
            .draw_series(LineSeries::new(points(program), colour.stroke_width(2)))?
            .label(program.title)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.9))
        .label_font((FONT, 13))
        .draw()?;
    area.present()?;
    Ok(())
}
