//! Hard bounds on a module's shape, checked before it is compiled. Compilation cannot be stopped half-way, so what it
//! could cost is bounded by what it is given: small inputs that unfold (nested components instantiated again and again,
//! functions with a million locals) are found here, in one pass over the bytes and without unfolding anything.

use wasmparser::{BinaryReaderError, ComponentInstance, FunctionBody, Instance, Operator, Parser, Payload};

use crate::limits;
use crate::module::Problem;

/// Name and content of the custom section with test cases, in a component of this shape.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Text of the section with test cases, if there is one.
    pub fixtures: Option<String>,
}

/// Walks over `bytes`, adds what is out of bounds to `problems` and returns what it saw on the way.
pub fn scan(bytes: &[u8], problems: &mut Vec<Problem>) -> Shape {
    let mut walk = Walk::default();
    if let Err(e) = walk.over(bytes) {
        problems.push(Problem::new("malformed", format!("not a WebAssembly component: {e}")));
        return walk.shape;
    }
    if !walk.is_component {
        let message = "a core module, not a component; encode it with `policy-build` or `wasm-tools component new`";
        problems.push(Problem::new("core-module", message.to_owned()));
    }
    for (what, found, most) in [
        ("functions", walk.functions, limits::FUNCTIONS),
        ("levels of nested components", walk.deepest, limits::NESTING),
        ("instantiations", walk.instantiations, limits::INSTANTIATIONS),
        ("bytes in its largest function", walk.largest_function, limits::FUNCTION_BYTES),
        ("locals in one function", walk.most_locals, limits::LOCALS as usize),
        ("locals times branches in one function", walk.most_crossings, limits::CROSSINGS),
        ("locals times branches in all functions", walk.crossings, limits::CROSSINGS_IN_ALL),
        ("bytes of test cases", walk.shape.fixtures.as_ref().map_or(0, String::len), limits::FIXTURES_BYTES),
    ] {
        if found > most {
            problems.push(Problem::new("too-large", format!("has {found} {what}; at most {most} are compiled")));
        }
    }
    walk.shape
}

#[derive(Default)]
struct Walk {
    is_component: bool,
    depth: usize,
    deepest: usize,
    functions: usize,
    instantiations: usize,
    largest_function: usize,
    most_locals: usize,
    /// Most parameters of a function type of the module at hand.
    params: usize,
    most_crossings: usize,
    crossings: usize,
    shape: Shape,
}

impl Walk {
    fn over(&mut self, bytes: &[u8]) -> Result<(), BinaryReaderError> {
        self.is_component = Parser::is_component(bytes);
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ComponentSection { .. } => {
                    self.depth += 1;
                    self.deepest = self.deepest.max(self.depth);
                }
                Payload::ModuleSection { .. } => {
                    self.depth += 1;
                    self.params = 0;
                }
                Payload::TypeSection(section) => {
                    for ty in section.into_iter_err_on_gc_types() {
                        self.params = self.params.max(ty?.params().len());
                    }
                }
                Payload::End(_) => self.depth = self.depth.saturating_sub(1),
                // Instances that only bundle what exists cost nothing.
                Payload::InstanceSection(section) => {
                    for instance in section {
                        self.instantiations += usize::from(matches!(instance?, Instance::Instantiate { .. }));
                    }
                }
                Payload::ComponentInstanceSection(section) => {
                    for instance in section {
                        self.instantiations += usize::from(matches!(instance?, ComponentInstance::Instantiate { .. }));
                    }
                }
                Payload::CodeSectionEntry(body) => self.function(&body)?,
                Payload::CustomSection(section) if section.name() == eventflow_policy_fixture::SECTION => {
                    self.shape.fixtures = Some(String::from_utf8_lossy(section.data()).into_owned());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn function(&mut self, body: &FunctionBody<'_>) -> Result<(), BinaryReaderError> {
        self.functions += 1;
        let range = body.range();
        self.largest_function = self.largest_function.max((range.end - range.start) as usize);
        let mut locals = 0_usize;
        for group in body.get_locals_reader()? {
            locals = locals.saturating_add(group?.0 as usize);
        }
        self.most_locals = self.most_locals.max(locals);
        let mut branches = 0_usize;
        for operator in body.get_operators_reader()? {
            branches += match operator? {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } | Operator::BrIf { .. } => 1,
                Operator::BrTable { targets } => targets.len() as usize,
                _ => 0,
            };
        }
        let crossings = locals.saturating_add(self.params).saturating_mul(branches);
        self.most_crossings = self.most_crossings.max(crossings);
        self.crossings = self.crossings.saturating_add(crossings);
        Ok(())
    }
}
