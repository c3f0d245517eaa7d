//! Objects that a command creates and whose end it waits for.

use std::fmt::Debug;

use anyhow::{Context as _, bail};
use k8s_openapi::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use serde::{Serialize, de::DeserializeOwned};

use super::output::print;
use crate::{
    cli::{CreateArguments, OutputFormat},
    domain::{key::Key, names::child, wire},
    io::{made, random},
};

/// Characters of the random part of a name.
const RANDOM_CHARACTERS: usize = 8;

/// An object that does one thing, and ends.
pub(super) trait Ends:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + 'static
{
    /// What it is called.
    const NOUN: &str;

    /// What it waits for, or does.
    fn message(&self) -> Option<&str>;

    /// How it has ended: with an error, its message.
    fn end(&self) -> Option<Result<(), String>>;
}

/// The name of an object that does something for a site: as given, or one that was not used before.
pub(super) fn made_name(site: &Key, does: &str, arguments: &CreateArguments) -> String {
    let random: String = random::id().chars().take(RANDOM_CHARACTERS).collect();
    arguments.name.clone().unwrap_or_else(|| child(&site.name, &format!("{does}-{random}")))
}

/// Waits for the end of an object that was created, if asked, and prints what it did. What it waits for goes to standard error.
pub(super) async fn until_its_end<K: Ends>(
    client: &Client,
    made: K,
    arguments: &CreateArguments,
    did: impl Fn(&K) -> String,
) -> anyhow::Result<()> {
    let key = Key::new(made.namespace().unwrap_or_default(), made.name_any());
    let noun = K::NOUN;
    if arguments.dry_run || arguments.no_wait {
        let dry = if arguments.dry_run { " (dry run)" } else { "" };
        return shown(arguments, &made, &format!("{noun} {key} created{dry}\n"));
    }
    let mut said = String::new();
    let ended = made::until(client, &key, |object: &K| {
        let message = object.message().unwrap_or_default();
        if object.end().is_none() && !message.is_empty() && message != said {
            eprintln!("{message}");
            message.clone_into(&mut said);
        }
        object.end().is_some()
    });
    let ended = ended.await.with_context(|| format!("watch {noun} {key}"))?;
    shown(arguments, &ended, &did(&ended))?;
    match ended.end() {
        Some(Err(message)) => bail!("{noun} {key}: {message}"),
        _ => Ok(()),
    }
}

fn shown<K: Ends>(arguments: &CreateArguments, object: &K, text: &str) -> anyhow::Result<()> {
    match arguments.output {
        Some(OutputFormat::Json) => print(&format!("{:#}\n", wire::json(object))),
        None => print(text),
    }
}
