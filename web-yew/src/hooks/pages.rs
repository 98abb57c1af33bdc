//! Asking for a list, part by part.

use std::rc::Rc;

use fanledger_gateway_api::Page;
use serde::de::DeserializeOwned;
use wasm_bindgen_futures::spawn_local;
use yew::prelude::*;

use crate::client::{Answered, ApiError, use_client};

/// What is known of a list.
pub(crate) struct Pages<T> {
    /// The parts so far, one after the other; `None` before the first.
    pub items: Option<Rc<Vec<T>>>,
    /// Why the last question had no answer.
    pub error: Option<ApiError>,
    /// There is more.
    pub has_more: bool,
    /// A part is under way.
    pub asking: bool,
    /// Asks for the next part.
    pub more: Callback<()>,
    /// Begins again.
    pub restart: Callback<Option<u64>>,
}

struct State<T> {
    number: u64,
    asking: bool,
    items: Option<Rc<Vec<T>>>,
    next: Option<String>,
    error: Option<ApiError>,
}

enum Action<T> {
    Forget { number: u64 },
    Asked { number: u64 },
    Answered { number: u64, first: bool, answer: Result<Answered<Page<T>>, ApiError> },
}

impl<T: Clone> Reducible for State<T> {
    type Action = Action<T>;

    fn reduce(self: Rc<Self>, action: Action<T>) -> Rc<Self> {
        let items = self.items.clone();
        match action {
            Action::Forget { number } => Rc::new(Self { number, asking: true, items: None, next: None, error: None }),
            Action::Asked { number } => {
                Rc::new(Self { number, asking: true, items, next: self.next.clone(), error: None })
            }
            Action::Answered { number, .. } if number != self.number => self,
            Action::Answered { number, first, answer: Ok(answered) } => {
                let before = items.filter(|_| !first).map(|items| items.to_vec()).unwrap_or_default();
                let items = before.into_iter().chain(answered.value.items).collect();
                let next = answered.value.next_cursor;
                Rc::new(Self { number, asking: false, items: Some(Rc::new(items)), next, error: None })
            }
            Action::Answered { number, first: _, answer: Err(error) } => {
                Rc::new(Self { number, asking: false, items, next: self.next.clone(), error: Some(error) })
            }
        }
    }
}

/// Asks the path for its first part, and again whenever it changes.
#[hook]
pub(crate) fn use_pages<T: DeserializeOwned + Clone + 'static>(path: Option<String>) -> Pages<T> {
    let client = use_client();
    let state = use_reducer(|| State::<T> { number: 0, asking: false, items: None, next: None, error: None });
    let numbers = use_mut_ref(|| 0_u64);
    let ask = {
        let (path, dispatcher, numbers, client) = (path.clone(), state.dispatcher(), numbers.clone(), client.clone());
        Callback::from(move |(cursor, min_position): (Option<String>, Option<u64>)| {
            let Some(path) = path.clone() else { return };
            let (client, dispatcher) = (client.clone(), dispatcher.clone());
            *numbers.borrow_mut() += 1;
            let number = *numbers.borrow();
            dispatcher.dispatch(Action::Asked { number });
            let first = cursor.is_none();
            // A cursor is base64url: nothing in it to be escaped.
            let path = match cursor {
                Some(cursor) => format!("{path}{}cursor={cursor}", if path.contains('?') { '&' } else { '?' }),
                None => path,
            };
            spawn_local(async move {
                let answer = client.get(&path, min_position).await;
                dispatcher.dispatch(Action::Answered { number, first, answer });
            });
        })
    };
    {
        let (ask, dispatcher) = (ask.clone(), state.dispatcher());
        use_effect_with((path, client), move |_| {
            *numbers.borrow_mut() += 1;
            dispatcher.dispatch(Action::Forget { number: *numbers.borrow() });
            ask.emit((None, None));
        });
    }
    let more = {
        let (ask, next) = (ask.clone(), state.next.clone());
        Callback::from(move |()| ask.emit((next.clone(), None)))
    };
    Pages {
        items: state.items.clone(),
        error: state.error.clone(),
        has_more: state.next.is_some(),
        asking: state.asking,
        more,
        restart: Callback::from(move |min_position| ask.emit((None, min_position))),
    }
}
