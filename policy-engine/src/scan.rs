//! Hard bounds on a module's shape, checked before it is compiled. Compilation cannot be stopped half-way, so what it
//! could cost is bounded by what it is given: small inputs that unfold (nested components instantiated again and again,
//! functions with a million locals) are found here, in one pass over the bytes and without unfolding anything.

use wasmparser::{ComponentInstance, Instance, Parser, Payload};

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
    shape: Shape,
}

impl Walk {
    fn over(&mut self, bytes: &[u8]) -> Result<(), wasmparser::BinaryReaderError> {
        self.is_component = Parser::is_component(bytes);
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ComponentSection { .. } => {
                    self.depth += 1;
                    self.deepest = self.deepest.max(self.depth);
                }
                Payload::ModuleSection { .. } => self.depth += 1,
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
                Payload::CodeSectionEntry(body) => {
                    self.functions += 1;
                    let range = body.range();
                    self.largest_function = self.largest_function.max((range.end - range.start) as usize);
                    let mut locals = 0_usize;
                    for group in body.get_locals_reader()? {
                        locals = locals.saturating_add(group?.0 as usize);
                    }
                    self.most_locals = self.most_locals.max(locals);
                }
                Payload::CustomSection(section) if section.name() == eventflow_policy_fixture::SECTION => {
                    self.shape.fixtures = Some(String::from_utf8_lossy(section.data()).into_owned());
                }
                _ => {}
            }
        }
        Ok(())
    }
}
