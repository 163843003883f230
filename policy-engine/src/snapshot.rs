//! A module with settings: checked against the schema, taken by the guest's `configure`, and frozen.
//!
//! Freezing (Wizer) turns the memory a configured guest has into the memory it starts from, so that a decision neither
//! parses settings nor warms up an allocator. It compiles the module anew, which takes some 100 ms; until then, and for
//! modules it cannot do, the policy configures itself in every decision: same verdicts, some microseconds more. New
//! settings therefore are in force in milliseconds and fast a moment later.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use serde_json::Value;
use wasmtime::component::{Instance, InstancePre, Lift, WasmList};
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

use crate::cache::Cache;
use crate::engine::PolicyEngine;
use crate::host::CallState;
use crate::limits;
use crate::module::{Module, Sha256Digest, compile};
use crate::run::{self, Exports, call_configure, failure, link};
use crate::schema;
use crate::types::{Manifest, SettingsProblem, World};

/// A module with settings, ready to decide. A clone shares everything.
#[derive(Clone)]
pub struct Policy {
    pub(crate) engine: PolicyEngine,
    pub(crate) name: Arc<str>,
    pub(crate) world: World,
    pub(crate) exports: Exports,
    pub(crate) pre: InstancePre<CallState>,
    /// Settings to configure each instance with; none if they are frozen into the image.
    pub(crate) configure_each: Option<String>,
    digest: Sha256Digest,
    settings: Sha256Digest,
    about: Arc<Manifest>,
}

/// Settings were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigureError {
    /// They do not fit the schema, or the guest objects to them; everything that is wrong.
    #[error("the settings were refused: {}", .0.iter().map(|p| format!("{}: {}", p.path, p.message)).collect::<Vec<_>>().join("; "))]
    Refused(Vec<SettingsProblem>),
    /// The guest failed over them.
    #[error("the policy failed over its settings: {0}")]
    Failed(run::Failure),
    /// The module does not answer this kind of question.
    #[error("the module is not a {0}")]
    OtherWorld(&'static str),
    /// The module cannot be joined with its imports.
    #[error("the module cannot be joined with its imports: {0}")]
    Link(String),
}

/// A policy could not be frozen and goes on configuring itself in every decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it cannot start from a frozen image: {0}")]
pub struct FreezeError(String);

impl Policy {
    /// Configures `module` for `world`. Quick: nothing is compiled.
    ///
    /// # Errors
    /// Settings that are refused, or over which the guest fails.
    pub fn configure(module: &Module, world: World, settings: &Value) -> Result<Self, ConfigureError> {
        if !module.worlds.contains(&world) {
            return Err(ConfigureError::OtherWorld(world.as_str()));
        }
        let text = settings.to_string();
        if text.len() > limits::SETTINGS_BYTES {
            let message = format!("more than {} bytes", limits::SETTINGS_BYTES);
            return Err(ConfigureError::Refused(vec![SettingsProblem { path: String::new(), message }]));
        }
        let misfits = schema::misfits(&module.schema, settings);
        if !misfits.is_empty() {
            return Err(ConfigureError::Refused(misfits));
        }
        let pre =
            link(&module.engine, &module.component, &module.imports).map_err(|p| ConfigureError::Link(p.message))?;
        let mut store = run::setup_store(&module.engine);
        let configured = pre
            .instantiate(&mut store)
            .and_then(|instance| call_configure(&mut store, &instance, &module.exports.configure, &text));
        configured
            .map_err(|e| ConfigureError::Failed(failure(&e, store.data(), &limits::SETUP)))?
            .map_err(|problems| ConfigureError::Refused(schema::bounded(problems)))?;
        // More may be used to set up than to decide; what decisions start from must fit them.
        let most = run::limits_of(world).memory_bytes;
        if store.data().memory_bytes > most {
            return Err(ConfigureError::Failed(run::Failure::OutOfMemory(most)));
        }
        Ok(Self {
            engine: module.engine.clone(),
            name: module.manifest.name.as_str().into(),
            world,
            exports: module.exports.clone(),
            pre,
            digest: module.digest,
            settings: Sha256Digest::of(text.as_bytes()),
            configure_each: Some(text),
            about: Arc::new(module.manifest.clone()),
        })
    }

    /// The same policy starting from a frozen image. `bytes` are those of the module. Takes a compilation or two,
    /// unless `cache` has it: not for a thread that serves requests.
    ///
    /// # Errors
    /// The module is of a kind that cannot be frozen (it changes tables, imports memory, ...); this policy is as good
    /// as before.
    pub fn freeze(&self, module: &Module, bytes: &[u8], cache: Option<&Cache>) -> Result<Self, FreezeError> {
        let Some(settings) = &self.configure_each else {
            return Ok(self.clone());
        };
        if module.digest != self.digest || Sha256Digest::of(bytes) != self.digest {
            return Err(FreezeError("these are another module's bytes".to_owned()));
        }
        // An image follows from the module and the settings, so their digests are its key.
        let key = format!("frozen\0{}\0{}", self.digest, self.settings);
        let key = Sha256Digest::of(key.as_bytes());
        let cached = cache.and_then(|cache| cache.load(self.engine.wasmtime(), key));
        let component = match cached {
            Some(component) => component,
            None => {
                let image = self.image(module, bytes, settings)?;
                compile(&self.engine, key, &image, cache).map_err(|p| FreezeError(p.message))?
            }
        };
        let missing = || FreezeError("the image lost an export".to_owned());
        let exports = Exports::find(&component).ok_or_else(missing)?;
        let pre = link(&self.engine, &component, &module.imports).map_err(|p| FreezeError(p.message))?;
        Ok(Self { pre, exports, configure_each: None, ..self.clone() })
    }

    /// The policy's name, from its manifest.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The module's identity.
    #[must_use]
    pub fn digest(&self) -> Sha256Digest {
        self.digest
    }

    /// The identity of its settings: SHA-256 of their JSON text.
    #[must_use]
    pub fn settings_digest(&self) -> Sha256Digest {
        self.settings
    }

    /// What the module says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.about
    }

    /// The kind of question it answers.
    #[must_use]
    pub fn world(&self) -> World {
        self.world
    }

    /// Bytes of its machine code, which policies of one image share.
    #[must_use]
    pub fn code_bytes(&self) -> usize {
        let range = self.pre.component().image_range();
        range.end.addr() - range.start.addr()
    }

    /// Whether decisions start from a frozen image.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.configure_each.is_none()
    }

    /// The component with the memory that a configured instance of it has.
    fn image(&self, module: &Module, bytes: &[u8], settings: &str) -> Result<Vec<u8>, FreezeError> {
        // Wizer panics over a few shapes of module (a mutable 128-bit global is one). What it holds at that moment is
        // its own and this store, both dropped here.
        let frozen = catch_unwind(AssertUnwindSafe(|| -> wasmtime::Result<Vec<u8>> {
            let wizer = Wizer::new();
            let (context, instrumented) = wizer.instrument_component(bytes)?;
            let digest = Sha256Digest::of(&instrumented);
            let component = compile(&self.engine, digest, &instrumented, None)
                .map_err(|problem| wasmtime::Error::msg(problem.message))?;
            let missing = || wasmtime::Error::msg("the instrumented module lost an export");
            let exports = Exports::find(&component).ok_or_else(missing)?;
            let pre = link(&self.engine, &component, &module.imports).map_err(|p| wasmtime::Error::msg(p.message))?;
            let mut store = run::setup_store(&self.engine);
            let instance = pre.instantiate(&mut store)?;
            call_configure(&mut store, &instance, &exports.configure, settings)?
                .map_err(|_| wasmtime::Error::msg("it refused settings it had accepted"))?;
            // Reading the state out is the host's work and not bounded by what the guest may do.
            store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Continue(1_000)));
            store.set_hostcall_fuel(2 * limits::SETUP.memory_bytes);
            ready(wizer.snapshot_component(&context, &mut Frozen { store: &mut store, instance }))
        }));
        match frozen {
            Ok(image) => image.map_err(|e| FreezeError(format!("{e:#}"))),
            Err(_) => Err(FreezeError("its state cannot be recorded".to_owned())),
        }
    }
}

/// A configured instance whose state Wizer reads, through functions that it added to the module itself.
struct Frozen<'a> {
    store: &'a mut Store<CallState>,
    instance: Instance,
}

impl Frozen<'_> {
    fn call<R: Lift + 'static, U>(
        &mut self,
        interface: &str,
        name: &str,
        used: impl FnOnce(&Store<CallState>, R) -> U,
    ) -> U {
        let read = || -> wasmtime::Result<R> {
            let missing = || wasmtime::Error::msg("an accessor is missing");
            let interface = self.instance.get_export_index(&mut *self.store, None, interface).ok_or_else(missing)?;
            let export =
                self.instance.get_export_index(&mut *self.store, Some(&interface), name).ok_or_else(missing)?;
            let function = self.instance.get_typed_func::<(), (R,)>(&mut *self.store, export)?;
            Ok(function.call(&mut *self.store, ())?.0)
        };
        let mut read = read;
        // The interface has no way to say an error, and the accessors are not the guest's code; `image` catches this.
        let value = read().expect("an accessor that Wizer added does not fail");
        used(self.store, value)
    }
}

impl ComponentInstanceState for Frozen<'_> {
    async fn call_func_ret_list_u8(&mut self, instance: &str, func: &str, contents: impl FnOnce(&[u8]) + Send) {
        self.call(instance, func, |store, list: WasmList<u8>| contents(list.as_le_slice(store)));
    }

    async fn call_func_ret_s32(&mut self, instance: &str, func: &str) -> i32 {
        self.call(instance, func, |_, value| value)
    }

    async fn call_func_ret_s64(&mut self, instance: &str, func: &str) -> i64 {
        self.call(instance, func, |_, value| value)
    }

    async fn call_func_ret_f32(&mut self, instance: &str, func: &str) -> u32 {
        self.call(instance, func, |_, value: f32| value.to_bits())
    }

    async fn call_func_ret_f64(&mut self, instance: &str, func: &str) -> u64 {
        self.call(instance, func, |_, value: f64| value.to_bits())
    }
}

/// The value of a future that never waits: Wizer's interface is async for hosts that are, and this one is not.
fn ready<T>(future: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => Err(wasmtime::Error::msg("Wizer waited for something")),
    }
}
