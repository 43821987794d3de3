//! Parses a WIT package and lists its elements: interfaces, types, functions, and what worlds import and export, each with
//! its structure as text. Two elements with equal texts have the same component type.

use std::collections::BTreeMap;

use wit_parser::{
    Function, FunctionKind, Handle, Interface, PackageId, PackageName, Resolve, Span, Stability, Type,
    TypeDef, TypeDefKind, TypeId, TypeOwner, World, WorldItem, WorldKey,
};

/// A parsed package of WIT.
pub(crate) struct WitPackage {
    resolve: Resolve,
    id: PackageId,
}

/// Where an element is: the interface or world, and its name in it; none for the interface or world itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ElementPlace {
    pub(crate) owner: ElementOwner,
    pub(crate) name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ElementOwner {
    Interface(String),
    /// The imports of a world. The world itself is an element of its imports.
    Imports(String),
    Exports(String),
}

/// What an element is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    /// Its structure, such as `func(key: string) -> bool`: names and order of cases, fields and parameters included.
    pub(crate) form: String,
    /// The line in its file, from 1; 0 if it has none of its own.
    pub(crate) line: usize,
    /// The version in `@since`. Types and worlds' items need none: they come with functions and interfaces.
    pub(crate) since: SinceVersion,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SinceVersion {
    NotNeeded,
    Missing,
    Given(String),
}

impl WitPackage {
    /// Parses the text of a package that uses no other one; `path` is for messages.
    pub(crate) fn parse(path: &str, text: &str) -> Result<Self, String> {
        let mut resolve = Resolve::default();
        let id = push(&mut resolve, path, text)?;
        Ok(Self { resolve, id })
    }

    /// Parses the text of a package that may use this one.
    pub(crate) fn parse_dependent(&self, path: &str, text: &str) -> Result<Self, String> {
        let mut resolve = self.resolve.clone();
        let id = push(&mut resolve, path, text)?;
        Ok(Self { resolve, id })
    }

    /// Such as `pintle:plugin@0.1.0`.
    pub(crate) fn name(&self) -> &PackageName {
        &self.resolve.packages[self.id].name
    }

    /// The version in its name; "" if it has none.
    pub(crate) fn version(&self) -> String {
        self.name().version.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    pub(crate) fn elements(&self) -> BTreeMap<ElementPlace, Element> {
        let package = &self.resolve.packages[self.id];
        let interfaces = package.interfaces.iter().flat_map(|(name, id)| {
            let owner = ElementOwner::Interface(name.clone());
            self.interface_elements(&owner, &self.resolve.interfaces[*id])
        });
        let worlds = package.worlds.values().flat_map(|id| self.world_elements(&self.resolve.worlds[*id]));
        interfaces.chain(worlds).collect()
    }

    fn interface_elements(
        &self,
        owner: &ElementOwner,
        interface: &Interface,
    ) -> Vec<(ElementPlace, Element)> {
        let place = |name: Option<&String>| ElementPlace { owner: owner.clone(), name: name.cloned() };
        let itself = Element {
            form: "interface".to_owned(),
            line: self.line(interface.span),
            since: since(&interface.stability),
        };
        let types = interface.types.iter().map(|(name, id)| (place(Some(name)), self.type_element(*id)));
        let functions = interface.functions.iter();
        let functions =
            functions.map(|(name, function)| (place(Some(name)), self.function_element(function)));
        std::iter::once((place(None), itself)).chain(types).chain(functions).collect()
    }

    fn world_elements(&self, world: &World) -> Vec<(ElementPlace, Element)> {
        let imports = ElementOwner::Imports(world.name.clone());
        let exports = ElementOwner::Exports(world.name.clone());
        let itself =
            Element { form: "world".to_owned(), line: self.line(world.span), since: SinceVersion::NotNeeded };
        let own = ElementPlace { owner: imports.clone(), name: None };
        let sides = [(imports, &world.imports), (exports, &world.exports)];
        let items = sides.into_iter().flat_map(|(owner, items)| {
            items.iter().map(move |(key, item)| {
                let name = Some(self.key_name(key));
                (ElementPlace { owner: owner.clone(), name }, self.item_element(item))
            })
        });
        std::iter::once((own, itself)).chain(items).collect()
    }

    /// The name of a world's item without the version of this package, which later versions do not share.
    fn key_name(&self, key: &WorldKey) -> String {
        match key {
            WorldKey::Name(name) => name.clone(),
            WorldKey::Interface(id) => self.interface_name(*id),
        }
    }

    fn interface_name(&self, id: wit_parser::InterfaceId) -> String {
        let interface = &self.resolve.interfaces[id];
        let name = interface.name.clone().unwrap_or_default();
        match interface.package {
            Some(package) if package != self.id => format!("{}/{name}", self.resolve.packages[package].name),
            _ => name,
        }
    }

    fn item_element(&self, item: &WorldItem) -> Element {
        match item {
            WorldItem::Interface { span, .. } => Element {
                form: "interface".to_owned(),
                line: self.line(*span),
                since: SinceVersion::NotNeeded,
            },
            WorldItem::Function(function) => self.function_element(function),
            WorldItem::Type { id, .. } => self.type_element(*id),
        }
    }

    fn function_element(&self, function: &Function) -> Element {
        let parameters =
            function.params.iter().map(|param| format!("{}: {}", param.name, self.type_text(&param.ty)));
        let parameters = parameters.collect::<Vec<_>>().join(", ");
        let result = function.result.as_ref().map(|result| format!(" -> {}", self.type_text(result)));
        let kind = function_kind(&function.kind);
        let form = format!("{kind}({parameters}){}", result.unwrap_or_default());
        Element { form, line: self.line(function.span), since: since(&function.stability) }
    }

    fn type_element(&self, id: TypeId) -> Element {
        let definition = &self.resolve.types[id];
        let form = match &definition.kind {
            TypeDefKind::Type(Type::Id(used)) => format!("use {}", self.type_text(&Type::Id(*used))),
            TypeDefKind::Type(alias) => format!("type {}", self.type_text(alias)),
            _ => self.definition_text(definition),
        };
        Element { form, line: self.line(definition.span), since: SinceVersion::NotNeeded }
    }

    /// A type where it is used: a defined one by its name, any other by its structure.
    fn type_text(&self, used: &Type) -> String {
        let Type::Id(id) = used else { return primitive(used).to_owned() };
        let definition = &self.resolve.types[*id];
        match (&definition.name, definition.owner) {
            (Some(name), TypeOwner::Interface(owner)) => format!("{}.{name}", self.interface_name(owner)),
            (Some(name), _) => name.clone(),
            (None, _) => self.definition_text(definition),
        }
    }

    fn definition_text(&self, definition: &TypeDef) -> String {
        let text = |used: &Type| self.type_text(used);
        let optional = |used: &Option<Type>| used.as_ref().map_or_else(|| "_".to_owned(), text);
        match &definition.kind {
            TypeDefKind::Record(record) => {
                let fields = record.fields.iter().map(|field| format!("{}: {}", field.name, text(&field.ty)));
                braced("record", fields)
            }
            TypeDefKind::Variant(variant) => {
                let cases = variant.cases.iter();
                braced("variant", cases.map(|case| format!("{}({})", case.name, optional(&case.ty))))
            }
            TypeDefKind::Enum(labels) => braced("enum", labels.cases.iter().map(|case| case.name.clone())),
            TypeDefKind::Flags(flags) => braced("flags", flags.flags.iter().map(|flag| flag.name.clone())),
            TypeDefKind::Tuple(tuple) => {
                format!("tuple<{}>", tuple.types.iter().map(text).collect::<Vec<_>>().join(", "))
            }
            TypeDefKind::Option(inner) => format!("option<{}>", text(inner)),
            TypeDefKind::Result(result) => {
                format!("result<{}, {}>", optional(&result.ok), optional(&result.err))
            }
            TypeDefKind::List(inner) => format!("list<{}>", text(inner)),
            TypeDefKind::Map(key, value) => format!("map<{}, {}>", text(key), text(value)),
            TypeDefKind::FixedLengthList(inner, length) => format!("list<{}, {length}>", text(inner)),
            TypeDefKind::Future(inner) => format!("future<{}>", optional(inner)),
            TypeDefKind::Stream(inner) => format!("stream<{}>", optional(inner)),
            TypeDefKind::Handle(Handle::Own(id)) => format!("own<{}>", text(&Type::Id(*id))),
            TypeDefKind::Handle(Handle::Borrow(id)) => format!("borrow<{}>", text(&Type::Id(*id))),
            TypeDefKind::Type(inner) => text(inner),
            TypeDefKind::Resource | TypeDefKind::Unknown => definition.kind.as_str().to_owned(),
        }
    }

    fn line(&self, span: Span) -> usize {
        if !span.is_known() {
            return 0;
        }
        // "PATH:LINE:COLUMN"
        let place = self.resolve.render_location(span);
        place.rsplit(':').nth(1).and_then(|line| line.parse().ok()).unwrap_or(0)
    }
}

impl ElementPlace {
    /// How a reader finds it: "interface `session`: `note`".
    pub(crate) fn shown(&self) -> String {
        let owner = match &self.owner {
            ElementOwner::Interface(name) => format!("interface `{name}`"),
            ElementOwner::Imports(name) | ElementOwner::Exports(name) if self.name.is_none() => {
                format!("world `{name}`")
            }
            ElementOwner::Imports(name) => format!("world `{name}`: import"),
            ElementOwner::Exports(name) => format!("world `{name}`: export"),
        };
        match (&self.name, &self.owner) {
            (None, _) => owner,
            (Some(name), ElementOwner::Interface(_)) => format!("{owner}: `{name}`"),
            (Some(name), _) => format!("{owner} `{name}`"),
        }
    }
}

fn push(resolve: &mut Resolve, path: &str, text: &str) -> Result<PackageId, String> {
    let pushed = resolve.push_str(path, text);
    pushed.map_err(|fault| resolve.render_error(&fault).trim().to_owned())
}

fn since(stability: &Stability) -> SinceVersion {
    match stability {
        Stability::Stable { since, .. } => SinceVersion::Given(since.to_string()),
        Stability::Unknown | Stability::Unstable { .. } => SinceVersion::Missing,
    }
}

fn braced(kind: &str, members: impl Iterator<Item = String>) -> String {
    format!("{kind} {{ {} }}", members.collect::<Vec<_>>().join(", "))
}

/// The word of a function's kind. Methods of resources have their kind and resource in their name.
fn function_kind(kind: &FunctionKind) -> &'static str {
    match kind {
        FunctionKind::AsyncFreestanding | FunctionKind::AsyncMethod(_) | FunctionKind::AsyncStatic(_) => {
            "async func"
        }
        FunctionKind::Freestanding
        | FunctionKind::Method(_)
        | FunctionKind::Static(_)
        | FunctionKind::Constructor(_) => "func",
    }
}

fn primitive(used: &Type) -> &'static str {
    match used {
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext => "error-context",
        Type::Id(_) => "defined type",
    }
}
