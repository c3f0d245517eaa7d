//! Benchmarks; the FrappeBench controller is src/controllers/bench. Run them with `cargo bench -p frappe-bench`.
