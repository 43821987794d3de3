//! `types` and `auth-types`: the types shared by the other interfaces. They have no functions.

use wasmtime::component::{HasData, Linker};

use crate::bindings::pintle::plugin::{auth_types, types};
use crate::store_data::StoreData;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, TypesInterface>(linker, |_| TypesView)
}

/// Adds the types of the AUTH hooks to the linker.
pub(crate) fn link_auth(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    auth_types::add_to_linker::<_, TypesInterface>(linker, |_| TypesView)
}

struct TypesInterface;

impl HasData for TypesInterface {
    type Data<'a> = TypesView;
}

struct TypesView;

impl types::Host for TypesView {}

impl auth_types::Host for TypesView {}
