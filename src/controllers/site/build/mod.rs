//! Builds the objects of a site. Pure and infallible: `validate` has found all errors.

mod claim;
mod database;
mod jobs;
mod routes;
mod secrets;

pub use claim::claim;
pub use database::{database, database_request, grant, own_server, user};
pub(in crate::controllers) use jobs::{Time, account_sources, job_of, labels_of, request};
pub use jobs::{configure_job, delete_job, init_job, update_job};
pub use routes::{http_route, ingress, route, route_key};
pub use secrets::{account_secret, admin_password, admin_password_copy, copy, credentials, root_password};
