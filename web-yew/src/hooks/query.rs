//! Asking for one thing.

use std::rc::Rc;

use serde::de::DeserializeOwned;
use wasm_bindgen_futures::spawn_local;
use yew::prelude::*;

use crate::client::{Answered, ApiError, use_client};

/// What is known of an answer. While it is asked for again the last one stays.
pub(crate) struct Query<T> {
    /// The last answer.
    pub data: Option<Rc<T>>,
    /// Why the last question had none.
    pub error: Option<ApiError>,
    /// Asks again; with a position, for an answer no older than that.
    pub refresh: Callback<Option<u64>>,
}

struct State<T> {
    number: u64,
    data: Option<Rc<T>>,
    error: Option<ApiError>,
}

enum Action<T> {
    /// Another question: what is known is about something else.
    Forget { number: u64 },
    Answered { number: u64, answer: Result<Answered<T>, ApiError> },
}

impl<T> Reducible for State<T> {
    type Action = Action<T>;

    fn reduce(self: Rc<Self>, action: Action<T>) -> Rc<Self> {
        match action {
            Action::Forget { number } => Rc::new(Self { number, data: None, error: None }),
            // Answers that were overtaken by another question or another answer are dropped.
            Action::Answered { number, .. } if number < self.number => self,
            Action::Answered { number, answer: Ok(answered) } => {
                Rc::new(Self { number, data: Some(Rc::new(answered.value)), error: None })
            }
            Action::Answered { number, answer: Err(error) } => {
                Rc::new(Self { number, data: self.data.clone(), error: Some(error) })
            }
        }
    }
}

/// Asks the path, and again whenever it changes; nothing while there is none.
#[hook]
pub(crate) fn use_query<T: DeserializeOwned + 'static>(path: Option<String>) -> Query<T> {
    let client = use_client();
    let state = use_reducer(|| State::<T> { number: 0, data: None, error: None });
    let numbers = use_mut_ref(|| 0_u64);
    let ask = {
        let (path, dispatcher, numbers) = (path.clone(), state.dispatcher(), numbers.clone());
        let client = client.clone();
        Callback::from(move |min_position: Option<u64>| {
            let Some(path) = path.clone() else { return };
            let (client, dispatcher) = (client.clone(), dispatcher.clone());
            *numbers.borrow_mut() += 1;
            let number = *numbers.borrow();
            spawn_local(async move {
                let answer = client.get::<T>(&path, min_position).await;
                dispatcher.dispatch(Action::Answered { number, answer });
            });
        })
    };
    {
        let (ask, dispatcher) = (ask.clone(), state.dispatcher());
        use_effect_with((path, client), move |_| {
            *numbers.borrow_mut() += 1;
            dispatcher.dispatch(Action::Forget { number: *numbers.borrow() });
            ask.emit(None);
        });
    }
    Query { data: state.data.clone(), error: state.error.clone(), refresh: ask }
}
