//! A hostile component, made from the contract: it calls any function that it may import with any core values, as a program
//! tells it that stands in the message's body.
//!
//! No compiler of any language would let it say what this one says: strings that are not UTF-8, numbers that are no case of
//! a variant, lists that begin behind the end of memory, answers that lie where nothing was written.
//!
//! A program is ten octets, data, and calls. The first four octets are added to each place that the guest allots for what
//! the host hands to it, the next four are where its answer lies, and two are the length of the data. A call is an octet that chooses the function by its name
//! (see [`slots`]), and its arguments: an octet below 128 is a small number, the next 64 with one more octet a place in
//! the program, and after the rest eight octets follow.

use std::borrow::Cow;

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, DataSection, ElementSection, Elements, EntityType, ExportKind,
    ExportSection, Function, FunctionSection, GlobalSection, GlobalType, ImportSection, MemArg,
    MemorySection, MemoryType, Module, RefType, TableSection, TableType, TypeSection, ValType,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Resolve, WorldId, WorldItem};

const CONTRACT: &str = include_str!("../../../../wit/plugin.wit");
const WORLD: &str = "package fuzz:guest;
world guest {
  include pintle:plugin/base@0.1.0;
  import pintle:plugin/dns@0.1.0;
  import pintle:plugin/kv@0.1.0;
  import pintle:plugin/sender-auth@0.1.0;
  import pintle:plugin/signing@0.1.0;
  import pintle:plugin/secrets@0.1.0;
  import pintle:plugin/leases@0.1.0;
  export pintle:plugin/on-message@0.1.0;
  export pintle:plugin/on-deliver@0.1.0;
}";

/// Where things lie in its memory.
const READ: i32 = 0x100;
const MANIFEST: i32 = 0x200;
const TEXT: i32 = 0x300;
const NOUGHT: i32 = 0x800;
const PROGRAM: i32 = 0x1_0000;
const LONGEST: i32 = 0x8000;
const HEAP: i32 = 0x2_0000;
/// Little memory, so that the host is not given megabytes to read by each second call.
const PAGES: u64 = 6;

/// Globals: the end of what is allotted, the place in the program, the program's end.
const TOP: u32 = 0;
const AT: u32 = 1;
const END: u32 = 2;

/// A function, of the host's or of ours.
struct Signature {
    module: String,
    name: String,
    params: Vec<ValType>,
    results: Vec<ValType>,
}

/// The component; of the interfaces that can be imported it leaves these out.
pub fn component(without: &[&str]) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_source("plugin.wit", CONTRACT).unwrap();
    let package = resolve.push_source("guest.wit", WORLD).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    let mut module = module(&resolve, world, without);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

fn signatures(resolve: &Resolve, world: WorldId, variant: AbiVariant) -> Vec<Signature> {
    let world = &resolve.worlds[world];
    let items = match variant {
        AbiVariant::GuestImport => &world.imports,
        _ => &world.exports,
    };
    let mut out = Vec::new();
    for (key, item) in items {
        let WorldItem::Interface { id, .. } = item else { continue };
        for function in resolve.interfaces[*id].functions.values() {
            let signature = resolve.wasm_signature(variant, function);
            out.push(Signature {
                module: resolve.name_world_key(key),
                name: function.name.clone(),
                params: signature.params.iter().map(core).collect(),
                results: signature.results.iter().map(core).collect(),
            });
        }
    }
    out
}

fn core(of: &WasmType) -> ValType {
    match of {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => ValType::I32,
        WasmType::I64 | WasmType::PointerOrI64 => ValType::I64,
        WasmType::F32 => ValType::F32,
        WasmType::F64 => ValType::F64,
    }
}

/// Which function each octet of a program calls: the one whose name comes to this number, or the next one that is free.
/// So programs mean the same when the contract has grown.
fn slots(all: &[Signature]) -> Vec<Option<usize>> {
    let mut slots = vec![None; 256];
    for (at, one) in all.iter().enumerate() {
        let interface = one.module.split(['/', '@']).nth(1).unwrap();
        let name = format!("{interface}.{}", one.name);
        let mut slot = name.bytes().fold(0_u8, |sum, octet| sum.wrapping_mul(31).wrapping_add(octet));
        while slots[usize::from(slot)].is_some() {
            slot = slot.wrapping_add(1);
        }
        slots[usize::from(slot)] = Some(at);
    }
    slots
}

/// What is put together of a core module.
#[derive(Default)]
struct Parts {
    types: TypeSection,
    imports: ImportSection,
    functions: FunctionSection,
    exports: ExportSection,
    code: CodeSection,
    count: u32,
}

impl Parts {
    fn of_type(&mut self, params: &[ValType], results: &[ValType]) -> u32 {
        self.types.ty().function(params.iter().copied(), results.iter().copied());
        self.types.len() - 1
    }

    fn import(&mut self, signature: &Signature) {
        let of_type = self.of_type(&signature.params, &signature.results);
        self.imports.import(&signature.module, &signature.name, EntityType::Function(of_type));
        self.count += 1;
    }

    fn define(&mut self, params: &[ValType], results: &[ValType], body: &Function) -> u32 {
        let of_type = self.of_type(params, results);
        self.functions.function(of_type);
        self.code.function(body);
        self.count += 1;
        self.count - 1
    }
}

fn module(resolve: &Resolve, world: WorldId, without: &[&str]) -> Vec<u8> {
    let all = signatures(resolve, world, AbiVariant::GuestImport);
    let slots = slots(&all);
    let there = |one: &&Signature| !without.iter().any(|name| one.module.contains(&format!("/{name}@")));
    let imports: Vec<&Signature> = all.iter().filter(there).collect();
    let mut parts = Parts::default();
    imports.iter().for_each(|signature| parts.import(signature));
    let read = imports.iter().position(|one| one.name == "read-body").unwrap();
    let realloc = parts.define(&[ValType::I32; 4], &[ValType::I32], &allot());
    let argument = parts.define(&[], &[ValType::I64], &argument());
    let mut nothing = Function::new([]);
    nothing.instructions().end();
    let mut calls = vec![parts.define(&[], &[], &nothing); 256];
    for (signature, number) in imports.iter().zip(0..) {
        let slot = slots.iter().position(|slot| slot.is_some_and(|at| std::ptr::eq(&all[at], *signature)));
        calls[slot.unwrap()] = parts.define(&[], &[], &call(signature, number, argument));
    }
    let of_call = parts.of_type(&[], &[]);
    let run = parts.define(&[], &[ValType::I32], &run(u32::try_from(read).unwrap(), of_call));
    for export in signatures(resolve, world, AbiVariant::GuestExport) {
        let mut body = Function::new([]);
        match export.name.as_str() {
            "describe" => body.instructions().i32_const(MANIFEST).end(),
            "configure" => body.instructions().i32_const(NOUGHT).end(),
            _ => body.instructions().call(run).end(),
        };
        let number = parts.define(&export.params, &export.results, &body);
        parts.exports.export(&format!("{}#{}", export.module, export.name), ExportKind::Func, number);
    }
    parts.exports.export("cabi_realloc", ExportKind::Func, realloc);
    parts.exports.export("memory", ExportKind::Memory, 0);
    assemble(&parts, &calls)
}

fn assemble(parts: &Parts, calls: &[u32]) -> Vec<u8> {
    let mut tables = TableSection::new();
    let size = calls.len() as u64;
    tables.table(TableType {
        element_type: RefType::FUNCREF,
        table64: false,
        minimum: size,
        maximum: Some(size),
        shared: false,
    });
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: PAGES,
        maximum: Some(PAGES),
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut globals = GlobalSection::new();
    for _ in [TOP, AT, END] {
        let counter = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
        globals.global(counter, &ConstExpr::i32_const(HEAP));
    }
    let mut elements = ElementSection::new();
    elements.active(Some(0), &ConstExpr::i32_const(0), Elements::Functions(Cow::Borrowed(calls)));
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(MANIFEST), manifest());
    data.active(0, &ConstExpr::i32_const(TEXT), *b"fuzz.guest1.0.0");
    let mut module = Module::new();
    module.section(&parts.types).section(&parts.imports).section(&parts.functions).section(&tables);
    module.section(&memories).section(&globals).section(&parts.exports).section(&elements);
    module.section(&parts.code).section(&data);
    module.finish()
}

/// Id, version, summary, no schema, no wants, nothing more.
fn manifest() -> Vec<u8> {
    let texts = [(TEXT, 10), (TEXT + 10, 5), (TEXT, 4)];
    let mut out: Vec<u8> =
        texts.iter().flat_map(|(at, length)| [*at, *length]).flat_map(i32::to_le_bytes).collect();
    out.resize(52, 0);
    out
}

fn at(offset: u64) -> MemArg {
    MemArg { offset, align: 0, memory_index: 0 }
}

/// `cabi_realloc`: never gives back, and adds what the program says.
fn allot() -> Function {
    const ALIGN: u32 = 2;
    const SIZE: u32 = 3;
    let mut body = Function::new([(1, ValType::I32)]);
    let mut code = body.instructions();
    code.global_get(TOP).local_get(ALIGN).i32_add().i32_const(1).i32_sub();
    code.i32_const(0).local_get(ALIGN).i32_sub().i32_and().local_tee(4);
    code.local_get(SIZE).i32_add().global_set(TOP);
    code.local_get(4).i32_const(PROGRAM).i32_load(at(0)).i32_add().end();
    body
}

/// The next argument of the program.
fn argument() -> Function {
    let mut body = Function::new([(1, ValType::I32), (1, ValType::I64)]);
    let mut code = body.instructions();
    let octet = |code: &mut wasm_encoder::InstructionSink<'_>| {
        code.global_get(AT).i32_load8_u(at(0)).global_get(AT).i32_const(1).i32_add().global_set(AT);
    };
    octet(&mut code);
    code.local_tee(0).i32_const(0x80).i32_lt_u().if_(BlockType::Empty);
    code.local_get(0).i64_extend_i32_u().return_().end();
    code.local_get(0).i32_const(0xC0).i32_lt_u().if_(BlockType::Empty);
    code.local_get(0).i32_const(0x3F).i32_and().i32_const(8).i32_shl();
    octet(&mut code);
    code.i32_or().i32_const(PROGRAM).i32_add().i64_extend_i32_u().return_().end();
    code.global_get(AT).i64_load(at(0)).local_set(1);
    code.global_get(AT).i32_const(8).i32_add().global_set(AT);
    code.local_get(1).end();
    body
}

/// Calls a function of the host's with arguments of the program, and forgets what it says.
fn call(signature: &Signature, number: u32, argument: u32) -> Function {
    let mut body = Function::new([]);
    let mut code = body.instructions();
    for param in &signature.params {
        code.call(argument);
        match param {
            ValType::I32 => code.i32_wrap_i64(),
            ValType::F64 => code.f64_reinterpret_i64(),
            ValType::F32 => code.i32_wrap_i64().f32_reinterpret_i32(),
            _ => &mut code,
        };
    }
    code.call(number);
    for _ in &signature.results {
        code.drop();
    }
    code.end();
    body
}

/// Reads the program, makes its calls, and answers what it says.
fn run(read: u32, of_call: u32) -> Function {
    let mut body = Function::new([]);
    let mut code = body.instructions();
    code.i32_const(HEAP).global_set(TOP);
    code.i32_const(PROGRAM).i32_const(0).i32_const(LONGEST + 16).memory_fill(0);
    code.i32_const(0).i32_const(LONGEST).i32_const(READ).call(read);
    code.i32_const(READ).i32_load8_u(at(0)).if_(BlockType::Empty);
    code.i32_const(NOUGHT).return_().end();
    code.i32_const(PROGRAM).i32_const(READ).i32_load(at(4)).i32_const(READ).i32_load(at(8)).memory_copy(0, 0);
    code.i32_const(PROGRAM + 10).i32_const(PROGRAM).i32_load16_u(at(8)).i32_add().global_set(AT);
    code.i32_const(PROGRAM).i32_const(READ).i32_load(at(8)).i32_add().global_set(END);
    code.block(BlockType::Empty).loop_(BlockType::Empty);
    code.global_get(AT).global_get(END).i32_ge_u().br_if(1);
    code.global_get(AT).i32_const(1).i32_add().global_set(AT);
    code.global_get(AT).i32_const(1).i32_sub().i32_load8_u(at(0));
    code.call_indirect(0, of_call).br(0).end().end();
    code.i32_const(PROGRAM).i32_load(at(4)).i32_eqz().if_(BlockType::Empty);
    code.i32_const(NOUGHT).return_().end();
    code.i32_const(PROGRAM).i32_load(at(4)).end();
    body
}
