//! One side of a comparison of point reads.
#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::latency::{Latencies, cpu_time, median};
use crate::tenants::ROWS;

/// One side: the same requests by many tasks, round by round.
#[derive(Debug)]
pub struct Side {
    name: &'static str,
    latencies: Latencies,
    rates: Vec<f64>,
    cpu: Duration,
}

impl Side {
    /// A side that has not run yet.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, latencies: Latencies::default(), rates: Vec::new(), cpu: Duration::ZERO }
    }

    /// Runs all tasks for `length`, each reading rows of its tenant, and returns the rate; round 0 only warms up.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn round<F>(
        &mut self,
        round: u64,
        tasks: u64,
        length: Duration,
        read: impl Fn(usize, i64) -> F + Clone + Send + 'static,
    ) -> Result<f64>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (begin, cpu) = (Instant::now(), cpu_time());
        let tasks: Vec<_> =
            (0..usize::try_from(tasks)?).map(|task| tokio::spawn(repeat(task, begin + length, read.clone()))).collect();
        let mut all = Latencies::default();
        for task in tasks {
            all.merge(task.await.context("a task panicked")??);
        }
        let rate = all.count() as f64 / begin.elapsed().as_secs_f64();
        if round > 0 {
            self.latencies.merge(all);
            self.rates.push(rate);
            self.cpu += cpu_time().saturating_sub(cpu);
        }
        Ok(rate)
    }

    /// Prints the median rate, and of all rounds the latencies and the processor time (of the whole process) per read; returns the rate.
    pub fn report(&mut self) -> f64 {
        let rate = median(&mut self.rates);
        let (p50, p99) = (self.latencies.percentile(50.0), self.latencies.percentile(99.0));
        let cpu = self.cpu_micros();
        println!("{:<16} {rate:>9.0}/s  p50 {p50:>9.1?}  p99 {p99:>9.1?}  {cpu:.1} µs of CPU each", self.name);
        rate
    }

    /// Processor time of the whole process per read, in microseconds.
    #[must_use]
    pub fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.latencies.count().max(1) as f64
    }
}

async fn repeat<F>(task: usize, until: Instant, read: impl Fn(usize, i64) -> F) -> Result<Latencies>
where
    F: Future<Output = Result<()>>,
{
    let mut latencies = Latencies::default();
    let mut id = 1;
    loop {
        let begin = Instant::now();
        if begin >= until {
            return Ok(latencies);
        }
        read(task, id).await?;
        latencies.record(begin.elapsed());
        // Steps through all rows in an order the page cache does not like.
        id = (id + 211) % ROWS + 1;
    }
}
