//! The binary `frappe-operator`.

/// Lists of thousands come and go beside a cache of small objects: this allocator releases what they took
/// (settings: `.cargo/config.toml`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    frappe_operator::main().await
}
