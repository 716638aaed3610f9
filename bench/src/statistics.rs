//! Medians, quantiles and confidence intervals.

/// Returns the value that a share of all values lies below; `None` if there are no values.
pub fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> Option<f64> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let index = ((values.len() as f64 * share) as usize).min(values.len().checked_sub(1)?);
    values.get(index).copied()
}

pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    quantile(values, 0.5)
}

pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// A median with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    /// Computes the interval from ranks, so that it holds for any distribution. The true median lies between the values
    /// whose ranks are 0.98 times the square root of the count from the middle (Conover, Practical Nonparametric
    /// Statistics, section 3.2).
    pub fn from_values(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len() as f64;
        let half = 1.96 / 2.0 * count.sqrt();
        let low = (count / 2.0 - half).floor().max(1.0) as usize - 1;
        let high = (count / 2.0 + half).ceil().min(count - 1.0) as usize;
        Some(Self { median: median(sorted.iter().copied())?, low: *sorted.get(low)?, high: *sorted.get(high)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_hundred_values_is_twenty_ranks_wide() {
        let values: Vec<_> = (1..=100).rev().map(f64::from).collect();
        let estimate = Estimate::from_values(&values).expect("values");
        assert_eq!(estimate, Estimate { median: 51.0, low: 40.0, high: 61.0 });
    }

    #[test]
    fn few_values_give_all_that_they_span_and_none_gives_nothing() {
        assert_eq!(Estimate::from_values(&[2.0, 1.0]), Some(Estimate { median: 2.0, low: 1.0, high: 2.0 }));
        assert_eq!(Estimate::from_values(&[7.0]), Some(Estimate { median: 7.0, low: 7.0, high: 7.0 }));
        assert_eq!(Estimate::from_values(&[]), None);
    }
}
