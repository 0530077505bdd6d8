//! Samples, what is left of them, and the order in which they are taken.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// However long one sample takes, so many are taken, if there are as many rounds.
const FEWEST: usize = 5;

/// Median and quartiles of a series.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) first_quartile: f64,
    pub(crate) third_quartile: f64,
    pub(crate) samples: usize,
}

impl Summary {
    /// None of an empty series.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: quantile(&sorted, 0.5)?,
            first_quartile: quantile(&sorted, 0.25)?,
            third_quartile: quantile(&sorted, 0.75)?,
            samples: sorted.len(),
        })
    }

    /// A figure that was counted, not sampled.
    pub(crate) fn exactly(value: f64) -> Self {
        Self {
            median: value,
            first_quartile: value,
            third_quartile: value,
            samples: 1,
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "median": self.median, "firstQuartile": self.first_quartile,
            "thirdQuartile": self.third_quartile, "samples": self.samples
        })
    }
}

/// Between neighbours in proportion.
fn quantile(sorted: &[f64], at: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = at * last as f64;
    let below = position.floor() as usize;
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    Some(low + (high - low) * (position - below as f64))
}

/// What one step of a series yields: figures by the name of their metric.
pub(crate) type Figures = Vec<(String, f64)>;

/// One thing that is measured again and again.
pub(crate) struct Series<'a> {
    pub(crate) case: String,
    pub(crate) subject: &'static str,
    step: Box<dyn FnMut() -> Result<Figures, String> + 'a>,
    series: Vec<(String, Vec<f64>)>,
    spent: Duration,
    failed: Option<String>,
}

impl<'a> Series<'a> {
    pub(crate) fn new(
        case: impl Into<String>,
        subject: &'static str,
        step: impl FnMut() -> Result<Figures, String> + 'a,
    ) -> Self {
        Self {
            case: case.into(),
            subject,
            step: Box::new(step),
            series: Vec::new(),
            spent: Duration::ZERO,
            failed: None,
        }
    }

    /// Why it was given up.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// What was measured, by metric.
    pub(crate) fn summaries(&self) -> impl Iterator<Item = (&str, Summary)> {
        let series = self.series.iter();
        series.filter_map(|(metric, samples)| Some((metric.as_str(), Summary::of(samples)?)))
    }

    fn samples(&self) -> usize {
        self.series.first().map_or(0, |(_, samples)| samples.len())
    }

    fn run_once(&mut self, keep: bool) {
        let start = Instant::now();
        let figures = (self.step)();
        self.spent += start.elapsed();
        match figures {
            Err(error) => self.failed = Some(error),
            Ok(figures) if keep => figures.into_iter().for_each(|figure| self.note(figure)),
            Ok(_) => self.spent = Duration::ZERO,
        }
    }

    fn note(&mut self, (metric, figure): (String, f64)) {
        match self.series.iter_mut().find(|(name, _)| *name == metric) {
            Some((_, samples)) => samples.push(figure),
            None => self.series.push((metric, vec![figure])),
        }
    }
}

/// How much measuring there is to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Samples of each series.
    pub(crate) rounds: usize,
    /// Rounds at the start whose samples are thrown away: caches fill, shared things are made once.
    pub(crate) warm_up: usize,
    /// A series that has taken so long gets no more samples than it needs.
    pub(crate) patience: Duration,
}

/// Measures all series in turn, in another order every round, so that whatever else happens on the machine
/// happens to all of them.
pub(crate) fn interleave(all_series: &mut [Series<'_>], effort: Effort) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut order: Vec<usize> = (0..all_series.len()).collect();
    for round in 0..effort.warm_up + effort.rounds {
        random.shuffle(&mut order);
        for &at in &order {
            let series = &mut all_series[at];
            let enough = series.samples() >= FEWEST && series.spent > effort.patience;
            if series.failed.is_none() && !enough {
                series.run_once(round >= effort.warm_up);
            }
        }
    }
}

/// Xorshift; the same order in every run is as good as another.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    fn shuffle(&mut self, order: &mut [usize]) {
        for last in (1..order.len()).rev() {
            order.swap(last, self.below(last + 1));
        }
    }
}
