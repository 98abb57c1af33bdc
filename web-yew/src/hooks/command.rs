//! Acting.

use std::rc::Rc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use wasm_bindgen_futures::spawn_local;
use yew::prelude::*;

use crate::client::{Answered, ApiError, Text, use_client};

/// A command that a page can send.
pub(crate) struct Command {
    /// It is under way.
    pub running: bool,
    /// Why the last one was refused.
    pub error: Option<ApiError>,
    /// Sends it: where to, and its body.
    pub send: Callback<(String, Value)>,
}

/// A command whose answer is given to `done`.
#[hook]
pub(crate) fn use_command<T: DeserializeOwned + 'static>(done: Callback<Answered<T>>) -> Command {
    use_anything(Rc::new(move |text| text.read::<T>().map(|answered| done.emit(answered))))
}

/// As in `query`: the same for all types.
#[hook]
fn use_anything(done: Rc<dyn Fn(Text) -> Result<(), ApiError>>) -> Command {
    let client = use_client();
    let running = use_state(|| false);
    let error = use_state(|| None::<ApiError>);
    let send = {
        let (running, error) = (running.clone(), error.clone());
        Callback::from(move |(path, body): (String, Value)| {
            let (client, running, error, done) = (client.clone(), running.clone(), error.clone(), done.clone());
            running.set(true);
            error.set(None);
            spawn_local(async move {
                let answer = client.post(&path, &body).await;
                running.set(false);
                error.set(answer.and_then(|text| done(text)).err());
            });
        })
    };
    Command { running: *running, error: (*error).clone(), send }
}
