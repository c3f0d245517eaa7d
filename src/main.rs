//! The binary `frappe-operator`.

/// Large lists are allocated and freed beside a cache of small objects: this allocator returns their memory
/// (settings: `.cargo/config.toml`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    frappe_operator::main().await
}
