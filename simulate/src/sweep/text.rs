//! A sweep on the terminal: a table, a chart and the recommendation.

use std::fmt;

use super::setting::plain;
use super::{CostUnit, Point, Sweep};

/// Characters of the chart, wide and high.
const WIDTH: usize = 60;
const HEIGHT: usize = 12;

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table(f)?;
        writeln!(f)?;
        self.chart(f)?;
        self.recommendation(f)
    }
}

impl Sweep {
    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![self.keys.clone()];
        rows[0].extend([self.unit.name(), "unserved"].map(str::to_owned));
        rows[0].extend((self.unit == CostUnit::Dollars).then(|| "pod-hours".to_owned()));
        rows[0].extend(["node-hours", "scale events", ""].map(str::to_owned));
        rows.extend(self.points.iter().enumerate().map(|(index, point)| self.row(index, point)));
        let columns = rows[0].len();
        let widths: Vec<_> = (0..columns)
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for row in rows {
            let cells: Vec<_> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
            // The last column is a word, to the left.
            let line = cells[..columns - 1].join("  ") + "  " + &row[columns - 1];
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn row(&self, index: usize, point: &Point) -> Vec<String> {
        let mut cells: Vec<_> = point.values.iter().map(plain).collect();
        cells.extend([self.unit.text(point.cost), percent(point.summary.unserved_share)]);
        cells.extend((self.unit == CostUnit::Dollars).then(|| format!("{:.1}", point.summary.pod_hours)));
        cells.extend([
            format!("{:.1}", point.summary.node_hours),
            point.summary.scale_events.to_string(),
            match point.front {
                _ if self.recommended == Some(index) => "◀ recommended".to_owned(),
                true => "front".to_owned(),
                false => String::new(),
            },
        ]);
        cells
    }

    /// Cost to the right, unserved load up; what dominates lies to the lower left.
    fn chart(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let costs = self.points.iter().map(|point| point.cost);
        let (least, most) = costs.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), c| (a.min(c), b.max(c)));
        let top = self.points.iter().map(|point| point.summary.unserved_share).fold(0.0, f64::max);
        let mut grid = vec![vec![' '; WIDTH]; HEIGHT];
        // The weightiest mark of a place stays.
        for weight in 0..3 {
            for (index, point) in self.points.iter().enumerate() {
                let (mark, is) = match weight {
                    0 => ('·', true),
                    1 => ('●', point.front),
                    _ => ('★', self.recommended == Some(index)),
                };
                if is {
                    let row = HEIGHT - 1 - cell(point.summary.unserved_share, 0.0, top, HEIGHT);
                    grid[row][cell(point.cost, least, most, WIDTH)] = mark;
                }
            }
        }
        writeln!(f, "unserved")?;
        for (row, line) in grid.iter().enumerate() {
            let label = match row {
                0 => percent(top),
                row if row == HEIGHT - 1 => percent(0.0),
                _ => String::new(),
            };
            writeln!(f, "{}", format!("{label:>9} │{}", line.iter().collect::<String>()).trim_end())?;
        }
        writeln!(f, "{:>9} └{}", "", "─".repeat(WIDTH))?;
        let (least, most) = (self.unit.text(least), self.unit.text(most));
        let room = WIDTH.saturating_sub(least.chars().count());
        writeln!(f, "{:>10} {least}{most:>room$}  {}", "", self.unit.name())?;
        writeln!(f, "{:>10} · setting   ● Pareto front   ★ recommended", "")
    }

    fn recommendation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(limit) = self.limit else { return Ok(()) };
        let Some(point) = self.recommended.and_then(|index| self.points.get(index)) else {
            let best =
                self.points.iter().map(|point| point.summary.unserved_share).fold(f64::INFINITY, f64::min);
            let (limit, best) = (percent(limit), percent(best));
            return writeln!(f, "\nNo setting leaves less than {limit} unserved; the best leaves {best}.");
        };
        let setting: Vec<_> = self
            .keys
            .iter()
            .zip(&point.values)
            .map(|(key, value)| format!("{key}={}", plain(value)))
            .collect();
        writeln!(
            f,
            "\nRecommended: {} costs {} and leaves {} unserved: the cheapest of at most {}.",
            setting.join(" "),
            self.unit.text(point.cost),
            percent(point.summary.unserved_share),
            percent(limit)
        )?;
        self.patches.iter().try_for_each(|command| writeln!(f, "  {command}"))
    }
}

impl CostUnit {
    fn name(self) -> &'static str {
        match self {
            Self::Dollars => "cost",
            Self::PodHours => "pod-hours",
        }
    }

    fn text(self, cost: f64) -> String {
        match self {
            Self::Dollars => format!("${cost:.2}"),
            Self::PodHours => format!("{cost:.1}"),
        }
    }
}

/// Which of `cells` a value between `least` and `most` falls into.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a cell of a chart"
)]
fn cell(value: f64, least: f64, most: f64, cells: usize) -> usize {
    let share = if most > least { (value - least) / (most - least) } else { 0.0 };
    ((share * (cells - 1) as f64).round() as usize).min(cells - 1)
}

fn percent(share: f64) -> String {
    let value = share * 100.0;
    match value {
        0.0 => "0%".to_owned(),
        value if value < 0.01 => format!("{value:.4}%"),
        value => format!("{value:.2}%"),
    }
}
