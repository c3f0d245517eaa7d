//! Plots of a report, as SVG.

use std::path::Path;

use plotters::prelude::*;

use crate::report::Report;

/// Width and height, in pixels.
const SIZE: (u32, u32) = (900, 360);
/// Maximum points of a line, so that a plot stays small.
const POINTS_MAX: usize = 200;

type Line = (String, Vec<(f64, f64)>);

/// Writes the plots of a report into a folder; returns their file names.
pub fn write(report: &Report, folder: &Path) -> anyhow::Result<Vec<String>> {
    let samples = &report.samples;
    let ready = samples.iter().map(|it| (it.seconds, crate::spread::exact(it.ready))).collect();
    let mut names: Vec<String> = samples.iter().flat_map(|it| it.resident_mebibytes.keys().cloned()).collect();
    names.sort();
    names.dedup();
    let memory = names.into_iter().map(|name| {
        let points = samples.iter().filter_map(|it| Some((it.seconds, *it.resident_mebibytes.get(&name)?))).collect();
        (name, points)
    });
    let cores = [
        ("operator".to_owned(), samples.iter().map(|it| (it.seconds, it.operator_cores)).collect()),
        ("API server".to_owned(), samples.iter().map(|it| (it.seconds, it.api_server_cores)).collect()),
    ];
    let plots: [(&str, &str, Vec<Line>); 3] = [
        ("ready", "sites that are Ready", vec![("sites".to_owned(), ready)]),
        ("memory", "memory of each member, MiB", memory.collect()),
        ("cores", "cores in use", cores.into()),
    ];
    let mut files = Vec::new();
    for (kind, title, lines) in plots {
        let file = format!("{}-{kind}.svg", report.name);
        draw(&folder.join(&file), title, lines)?;
        files.push(file);
    }
    Ok(files)
}

fn draw(path: &Path, title: &str, mut lines: Vec<Line>) -> anyhow::Result<()> {
    for (_, points) in &mut lines {
        let every = points.len().div_ceil(POINTS_MAX).max(1);
        *points = points.iter().copied().step_by(every).collect();
    }
    let most = |of: fn(&(f64, f64)) -> f64| lines.iter().flat_map(|(_, points)| points).map(of).fold(1.0, f64::max);
    let (width, height) = (most(|it| it.0), most(|it| it.1) * 1.05);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..width, 0.0..height)?;
    chart.configure_mesh().light_line_style(WHITE).x_desc("seconds").draw()?;
    for (index, (name, points)) in lines.into_iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerRight).border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}
