//! What the backends count themselves, read when the metrics are.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// What was read of one metric: its name without the process's prefix, its help, its value.
pub(crate) enum Reading {
    /// Only goes up.
    Counter(&'static str, &'static str, u64),
    /// Goes up and down.
    Gauge(&'static str, &'static str, i64),
}

/// Registers what `read` finds, each time that the metrics are asked for; it is not to wait.
pub(crate) fn register(registry: &mut Registry, read: impl Fn() -> Vec<Reading> + Send + Sync + 'static) {
    registry.sub_registry_with_prefix("nearby").register_collector(Box::new(Reader(Box::new(read))));
}

struct Reader(Box<dyn Fn() -> Vec<Reading> + Send + Sync>);

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl Collector for Reader {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for reading in (self.0)() {
            match reading {
                Reading::Counter(name, help, value) => {
                    let metric = ConstCounter::new(value);
                    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
                }
                Reading::Gauge(name, help, value) => {
                    let metric = ConstGauge::new(value);
                    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
                }
            }
        }
        Ok(())
    }
}
