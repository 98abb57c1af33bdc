//! Asking for a list, part by part.

use std::any::Any;
use std::rc::Rc;

use fanledger_gateway_api::Page;
use serde::de::DeserializeOwned;
use wasm_bindgen_futures::spawn_local;
use yew::prelude::*;

use crate::client::{ApiError, Text, use_client};

/// What is known of a list.
pub(crate) struct Pages<T> {
    /// The parts so far, one after the other; `None` before the first.
    pub items: Option<Vec<T>>,
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

impl<T> Pages<T> {
    /// Whether no more than the first part is shown: whoever has read on is not thrown back when the newest changes.
    pub(crate) fn is_at_the_top(&self) -> bool {
        self.items.as_ref().is_none_or(|items| items.len() <= 50)
    }
}

/// A part of whichever list, as in `query`, and where the next one begins.
type Part = (Rc<dyn Any>, Option<String>);
type Reader = fn(Text) -> Result<Part, ApiError>;

struct State {
    number: u64,
    asking: bool,
    parts: Vec<Rc<dyn Any>>,
    next: Option<String>,
    error: Option<ApiError>,
}

enum Action {
    Forget { number: u64 },
    Asked { number: u64 },
    Answered { number: u64, first: bool, answer: Result<Part, ApiError> },
}

impl Reducible for State {
    type Action = Action;

    fn reduce(self: Rc<Self>, action: Action) -> Rc<Self> {
        let (parts, next) = (self.parts.clone(), self.next.clone());
        match action {
            Action::Forget { number } => {
                Rc::new(Self { number, asking: true, parts: Vec::new(), next: None, error: None })
            }
            Action::Asked { number } => Rc::new(Self { number, asking: true, parts, next, error: None }),
            Action::Answered { number, .. } if number != self.number => self,
            Action::Answered { number, first, answer: Ok((part, next)) } => {
                let before = if first { Vec::new() } else { parts };
                let parts = before.into_iter().chain([part]).collect();
                Rc::new(Self { number, asking: false, parts, next, error: None })
            }
            Action::Answered { number, first: _, answer: Err(error) } => {
                Rc::new(Self { number, asking: false, parts, next, error: Some(error) })
            }
        }
    }
}

/// Asks the path for its first part, and again whenever it changes.
#[hook]
pub(crate) fn use_pages<T: DeserializeOwned + Clone + 'static>(path: String) -> Pages<T> {
    let list = use_anything(path, |text| {
        let page = text.read::<Page<T>>()?.value;
        Ok((Rc::new(page.items), page.next_cursor))
    });
    let items = list.parts.iter().filter_map(|part| part.downcast_ref::<Vec<T>>()).flatten().cloned().collect();
    Pages {
        items: (!list.parts.is_empty()).then_some(items),
        error: list.error,
        has_more: list.has_more,
        asking: list.asking,
        more: list.more,
        restart: list.restart,
    }
}

struct List {
    parts: Vec<Rc<dyn Any>>,
    error: Option<ApiError>,
    has_more: bool,
    asking: bool,
    more: Callback<()>,
    restart: Callback<Option<u64>>,
}

#[hook]
fn use_anything(path: String, reader: Reader) -> List {
    let client = use_client();
    let state = use_reducer(|| State { number: 0, asking: false, parts: Vec::new(), next: None, error: None });
    let numbers = use_mut_ref(|| 0_u64);
    let ask = {
        let (path, dispatcher, numbers, client) = (path.clone(), state.dispatcher(), numbers.clone(), client.clone());
        Callback::from(move |(cursor, min_position): (Option<String>, Option<u64>)| {
            let (client, dispatcher) = (client.clone(), dispatcher.clone());
            *numbers.borrow_mut() += 1;
            let number = *numbers.borrow();
            dispatcher.dispatch(Action::Asked { number });
            let first = cursor.is_none();
            // A cursor is base64url: nothing in it is to be escaped.
            let path = match cursor {
                Some(cursor) => format!("{path}{}cursor={cursor}", if path.contains('?') { '&' } else { '?' }),
                None => path.clone(),
            };
            spawn_local(async move {
                let answer = client.get(&path, min_position).await.and_then(reader);
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
    List {
        parts: state.parts.clone(),
        error: state.error.clone(),
        has_more: state.next.is_some(),
        asking: state.asking,
        more,
        restart: Callback::from(move |min_position| ask.emit((None, min_position))),
    }
}
