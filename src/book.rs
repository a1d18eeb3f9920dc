//! The chapters of the book, so that their examples are tests.

macro_rules! chapters {
    ($($name:ident: $file:literal,)*) => {
        $(#[doc = include_str!($file)] struct $name;)*
    };
}

chapters! {
    Cogroup: "../docs/operators/cogroup.md",
    Guarantees: "../docs/guarantees.md",
    Sessions: "../docs/operators/sessions.md",
}
