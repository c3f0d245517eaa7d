//! A process's resource usage, from /proc, and its metrics, from /metrics.

/// Clock ticks in a second of /proc/PID/stat (`getconf CLK_TCK` on Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// Resource usage of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Its CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Its current memory, in MiB.
    pub resident_mebibytes: f64,
}

impl Process {
    /// Reads /proc of a running process.
    pub fn read(id: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|it| it.parse::<f64>().ok()).unwrap_or(0.0);
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        let kibibytes = resident.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0);
        Ok(Self { cpu_seconds: (ticks(11) + ticks(12)) / TICKS_PER_SECOND, resident_mebibytes: kibibytes / 1024.0 })
    }
}

/// Seconds for which some process of this machine has waited for the disk since the machine started: `some` in
/// `/proc/pressure/io`. None if the kernel does not count it.
pub fn disk_wait_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/pressure/io").ok()?;
    let microseconds: f64 = text.lines().next()?.rsplit_once("total=")?.1.trim().parse().ok()?;
    Some(microseconds / 1e6)
}

/// One response of /metrics.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// Parses the text format of Prometheus.
    pub fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            series
                .filter_map(|line| line.rsplit_once(' '))
                .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
                .collect(),
        )
    }

    /// Sum of a metric's series whose text matches.
    pub fn sum(&self, name: &str, wanted: impl Fn(&str) -> bool) -> f64 {
        let of = |series: &str| series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        self.0.iter().filter(|(series, _)| of(series) && wanted(series)).map(|(_, value)| value).sum()
    }

    /// Requests other than those for Leases and the map, and watches.
    pub fn work_requests(&self) -> f64 {
        self.sum("rest_client_requests_total", |series| {
            !["resource=\"leases\"", "resource=\"slotmaps\"", "method=\"watch\""].iter().any(|it| series.contains(it))
        })
    }

    /// Bytes received in watches and lists.
    pub fn watch_bytes(&self) -> f64 {
        self.sum("rest_client_response_bytes_total", |series| {
            series.contains("\"watch\"") || series.contains("\"list\"")
        })
    }

    /// Cumulative counts of a histogram's buckets by their upper bound, of the series whose text matches.
    pub fn buckets(&self, name: &str, wanted: impl Fn(&str) -> bool) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        let prefix = format!("{name}_bucket{{");
        for (series, count) in self.0.iter().filter(|(series, _)| series.starts_with(&prefix) && wanted(series)) {
            let Some(bound) = series.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()) else { continue };
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap_or(f64::INFINITY) };
            match buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, *count)),
            }
        }
        buckets.sort_by(|left, right| left.0.total_cmp(&right.0));
        buckets
    }
}

/// A quantile of a histogram's cumulative buckets, linear within a bucket as in Prometheus' `histogram_quantile`;
/// None if nothing was counted. Beyond the last bound it is that bound.
pub fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let total = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let rank = share * total;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank {
            if bound.is_infinite() {
                return Some(lower);
            }
            let inside = count - below;
            return Some(if inside > 0.0 { lower + (bound - lower) * (rank - below) / inside } else { *bound });
        }
        (lower, below) = (*bound, *count);
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE wait_seconds histogram\nwait_seconds_bucket{name=\"a\",le=\"0.1\"} 50\n\
        wait_seconds_bucket{name=\"a\",le=\"1\"} 100\nwait_seconds_bucket{name=\"a\",le=\"+Inf\"} 100\n\
        wait_seconds_bucket{name=\"b\",le=\"+Inf\"} 7\nrest_client_requests_total{method=\"patch\",resource=\"jobs\"} 3\n\
        rest_client_requests_total{method=\"update\",resource=\"leases\"} 9\nrest_client_requests_total_other 5\n";

    #[test]
    fn sums_and_quantiles_are_those_of_prometheus() {
        let metrics = Metrics::parse(TEXT);
        assert!((metrics.work_requests() - 3.0).abs() < 1e-9);
        let buckets = metrics.buckets("wait_seconds", |series| series.contains("name=\"a\""));
        assert_eq!(buckets.len(), 3);
        assert!((quantile(&buckets, 0.5).expect("counted") - 0.1).abs() < 1e-9);
        assert!((quantile(&buckets, 0.75).expect("counted") - 0.55).abs() < 1e-9);
        assert_eq!(quantile(&[(1.0, 0.0)], 0.5), None);
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 4.0)], 0.99), Some(1.0), "beyond the last bound");
    }
}
