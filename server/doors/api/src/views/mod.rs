//! Conversion of what the use cases return into the words of the API.

mod device;
mod incident;
mod join;
mod operator;
mod preview;
mod release;
mod rollout;
mod trust;

pub(crate) use incident::hold_view;
pub(crate) use operator::token_view;
pub(crate) use release::release_view;
pub(crate) use rollout::rollout_view;

/// Conversion into a view. The views are words of `tidegate-api`, which knows no use case.
pub(crate) trait View<T> {
    /// Shows it.
    fn view(of: T) -> Self;
}
