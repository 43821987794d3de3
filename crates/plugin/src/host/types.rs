//! `types`: the types shared by the other interfaces. It has no functions.

use wasmtime::component::{HasData, Linker};

use crate::bindings::pintle::plugin::types::{self, Host};
use crate::store_data::StoreData;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, TypesInterface>(linker, |_| TypesView)
}

struct TypesInterface;

impl HasData for TypesInterface {
    type Data<'a> = TypesView;
}

struct TypesView;

impl Host for TypesView {}
