//! Many measured durations and what is said about them.

use std::time::Duration;

/// Latencies of one side of a comparison.
#[derive(Debug, Default)]
pub struct Latencies {
    nanos: Vec<u64>,
}

impl Latencies {
    /// Adds one measurement.
    pub fn record(&mut self, took: Duration) {
        self.nanos.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds all measurements of another.
    pub fn merge(&mut self, other: Self) {
        self.nanos.extend(other.nanos);
    }

    /// How many measurements there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.nanos.len()
    }

    /// The latency that `percent` of the measurements do not exceed; zero when there are none.
    pub fn percentile(&mut self, percent: f64) -> Duration {
        if self.nanos.is_empty() {
            return Duration::ZERO;
        }
        self.nanos.sort_unstable();
        let last = self.nanos.len() - 1;
        let index = (last as f64 * percent / 100.0).round() as usize;
        Duration::from_nanos(self.nanos[index.min(last)])
    }
}

/// Processor time this process has used so far, all threads; zero where `/proc` does not say.
#[must_use]
pub fn cpu_time() -> Duration {
    // proc_pid_stat(5): after the parenthesised name, fields 14 and 15 are user and system time in ticks of 10 ms.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    Duration::from_millis(10 * ticks.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>())
}

/// The middle value; zero when there are none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(50.0), Duration::ZERO);
        for millis in (0..=100).rev() {
            latencies.record(Duration::from_millis(millis));
        }
        assert_eq!(latencies.percentile(50.0), Duration::from_millis(50));
        assert_eq!(latencies.percentile(99.0), Duration::from_millis(99));
        assert_eq!(latencies.percentile(100.0), Duration::from_millis(100));
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
    }
}
