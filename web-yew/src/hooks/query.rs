//! Asking for one thing.

use std::any::Any;
use std::rc::Rc;

use serde::de::DeserializeOwned;
use wasm_bindgen_futures::spawn_local;
use yew::prelude::*;

use crate::client::{ApiError, Text, use_client};

/// What is known of an answer. While it is asked for again the last one stays.
pub(crate) struct Query<T> {
    /// The last answer.
    pub data: Option<Rc<T>>,
    /// Why the last question had none.
    pub error: Option<ApiError>,
    /// Asks again; with a position, for an answer no older than that.
    pub refresh: Callback<Option<u64>>,
}

/// An answer of whichever type. The work around it is the same for all types, so it is compiled once for all of them: an app of which
/// everybody fetches each byte is a quarter smaller for it.
type Anything = Rc<dyn Any>;
type Reader = fn(Text) -> Result<Anything, ApiError>;

struct State {
    number: u64,
    data: Option<Anything>,
    error: Option<ApiError>,
}

enum Action {
    /// Another question: what is known is about something else.
    Forget {
        number: u64,
    },
    Answered {
        number: u64,
        answer: Result<Anything, ApiError>,
    },
}

impl Reducible for State {
    type Action = Action;

    fn reduce(self: Rc<Self>, action: Action) -> Rc<Self> {
        match action {
            Action::Forget { number } => Rc::new(Self { number, data: None, error: None }),
            // Answers that were overtaken by another question or another answer are dropped.
            Action::Answered { number, .. } if number < self.number => self,
            Action::Answered { number, answer: Ok(data) } => Rc::new(Self { number, data: Some(data), error: None }),
            Action::Answered { number, answer: Err(error) } => {
                Rc::new(Self { number, data: self.data.clone(), error: Some(error) })
            }
        }
    }
}

/// Asks the path, and again whenever it changes; nothing while there is none.
#[hook]
pub(crate) fn use_query<T: DeserializeOwned + 'static>(path: Option<String>) -> Query<T> {
    let query = use_anything(path, |text| Ok(Rc::new(text.read::<T>()?.value)));
    let data = query.data.map(|data| data.downcast::<T>()).and_then(Result::ok);
    Query { data, error: query.error, refresh: query.refresh }
}

struct Answer {
    data: Option<Anything>,
    error: Option<ApiError>,
    refresh: Callback<Option<u64>>,
}

#[hook]
fn use_anything(path: Option<String>, reader: Reader) -> Answer {
    let client = use_client();
    let state = use_reducer(|| State { number: 0, data: None, error: None });
    let numbers = use_mut_ref(|| 0_u64);
    let refresh = {
        let (path, dispatcher, numbers, client) = (path.clone(), state.dispatcher(), numbers.clone(), client.clone());
        Callback::from(move |min_position: Option<u64>| {
            let Some(path) = path.clone() else { return };
            let (client, dispatcher) = (client.clone(), dispatcher.clone());
            *numbers.borrow_mut() += 1;
            let number = *numbers.borrow();
            spawn_local(async move {
                let answer = client.get(&path, min_position).await.and_then(reader);
                dispatcher.dispatch(Action::Answered { number, answer });
            });
        })
    };
    {
        let (ask, dispatcher) = (refresh.clone(), state.dispatcher());
        use_effect_with((path, client), move |_| {
            *numbers.borrow_mut() += 1;
            dispatcher.dispatch(Action::Forget { number: *numbers.borrow() });
            ask.emit(None);
        });
    }
    Answer { data: state.data.clone(), error: state.error.clone(), refresh }
}
