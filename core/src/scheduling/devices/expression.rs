//! The language of device selectors: CEL with quantities and semantic versions.
//!
//! Source of the names: Kubernetes, `k8s.io/dynamic-resource-allocation/cel` and `k8s.io/apiserver/pkg/cel/library`.
#![allow(clippy::trivially_copy_pass_by_ref, reason = "the language hands references to its functions")]

use std::{
    any::Any,
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use cel::{
    Context, DeclarationError, Env, ExecutionError, IdedExpr, ParseError, Value,
    common::{
        ast::{ComprehensionExpr, Expr, ListExpr, LiteralValue},
        traits::{Container, Indexer},
        types::{CelBool, CelDouble, CelInt, CelMap, CelMapKey, CelString, MAP_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
    extensions,
    parser::{Macro, MacroExprHelper},
};
use cel::{add_member_overload, add_overload};

use super::{
    depth::{MAX_DEPTH, depth},
    semver::Semver,
    slice::{Attribute, Device},
};
use crate::quantity::{format_milli, parse_milli};

/// A compiled expression.
pub(super) type Program = cel::Program;

/// The language, or why there is none.
static LANGUAGE: LazyLock<Result<Arc<Env>, String>> =
    LazyLock::new(|| language().map(Arc::new).map_err(|error| error.to_string()));

static QUANTITY: Type = Type::new_unspecified_type("kubernetes.Quantity");
static SEMVER: Type = Type::new_unspecified_type("kubernetes.Semver");

/// Compiles an expression.
pub(super) fn compile(expression: &str) -> Result<Program, String> {
    if depth(expression) > MAX_DEPTH {
        return Err(format!("CEL compile error: nested too deeply, more than {MAX_DEPTH} levels"));
    }
    let env = LANGUAGE.as_ref().map_err(Clone::clone)?;
    env.compile(expression).map_err(|error| format!("CEL compile error: {error}"))
}

/// Whether an expression holds for a device of a driver.
pub(super) fn holds(program: &Program, device: &Device, driver: &str) -> Result<bool, String> {
    let env = LANGUAGE.as_ref().map_err(Clone::clone)?;
    let mut context = Context::with_env(env.clone());
    context.add_variable_as_val("device", Box::new(subject(device, driver)?));
    match program.execute(&context) {
        Ok(Value::Bool(holds)) => Ok(holds),
        Ok(other) => Err(format!("CEL runtime error: {other:?} is no truth value")),
        Err(error) => Err(format!("CEL runtime error: {error}")),
    }
}

fn language() -> Result<Env, DeclarationError> {
    let mut env = Env::stdlib();
    env.add_extension(extensions::strings)?;
    env.add_extension(extensions::lists)?;
    env.add_macro(Macro::receiver("bind", 3, bind))?;
    env.add_type(QUANTITY.to_owned())?;
    add_overload!(env, fn quantity: (CelString) -> Result<Quantity>)?;
    add_overload!(env, fn is_quantity: (CelString) -> CelBool)?;
    add_member_overload!(env, fn quantity_compare: (Quantity, Quantity) -> CelInt, name = "compareTo")?;
    add_member_overload!(env, fn quantity_above: (Quantity, Quantity) -> CelBool, name = "isGreaterThan")?;
    add_member_overload!(env, fn quantity_below: (Quantity, Quantity) -> CelBool, name = "isLessThan")?;
    add_member_overload!(env, fn plus: (Quantity, Quantity) -> Quantity, name = "add")?;
    add_member_overload!(env, fn plus_units: (Quantity, CelInt) -> Quantity, name = "add")?;
    add_member_overload!(env, fn minus: (Quantity, Quantity) -> Quantity, name = "sub")?;
    add_member_overload!(env, fn minus_units: (Quantity, CelInt) -> Quantity, name = "sub")?;
    add_member_overload!(env, fn sign: (Quantity) -> CelInt)?;
    add_member_overload!(env, fn is_integer: (Quantity) -> CelBool)?;
    add_member_overload!(env, fn as_integer: (Quantity) -> Result<CelInt>)?;
    add_member_overload!(env, fn as_approximate_float: (Quantity) -> CelDouble)?;
    env.add_type(SEMVER.to_owned())?;
    add_overload!(env, fn semver: (CelString) -> Result<Version>)?;
    add_overload!(env, fn semver_if: (CelString, CelBool) -> Result<Version>, name = "semver")?;
    add_overload!(env, fn is_semver: (CelString) -> CelBool)?;
    add_overload!(env, fn is_semver_if: (CelString, CelBool) -> CelBool, name = "isSemver")?;
    add_member_overload!(env, fn version_compare: (Version, Version) -> CelInt, name = "compareTo")?;
    add_member_overload!(env, fn version_above: (Version, Version) -> CelBool, name = "isGreaterThan")?;
    add_member_overload!(env, fn version_below: (Version, Version) -> CelBool, name = "isLessThan")?;
    add_member_overload!(env, fn major: (Version) -> CelInt)?;
    add_member_overload!(env, fn minor: (Version) -> CelInt)?;
    add_member_overload!(env, fn patch: (Version) -> CelInt)?;
    Ok(env)
}

/// `cel.bind(NAME, VALUE, EXPRESSION)`: a fold over nothing that begins with the value.
fn bind(
    helper: &mut MacroExprHelper<'_>,
    target: &mut Option<IdedExpr>,
    args: &mut Vec<IdedExpr>,
) -> Result<Option<IdedExpr>, ParseError> {
    let is_ours = |target: &IdedExpr| matches!(&target.expr, Expr::Ident(name) if name == "cel");
    if !target.as_ref().is_some_and(is_ours) {
        return Ok(None);
    }
    let [name, value, result] = <[IdedExpr; 3]>::try_from(std::mem::take(args))
        .map_err(|args| helper.new_error(0, format!("cel.bind takes 3 arguments, not {}", args.len())))?;
    let Expr::Ident(accu_var) = name.expr else {
        return Err(helper.new_error(name.id, "the first argument of cel.bind is a name"));
    };
    let fold = ComprehensionExpr {
        iter_range: helper.next_expr(Expr::List(ListExpr::new(Vec::new()))),
        iter_var: "#unused".to_owned(),
        iter_var2: None,
        accu_init: value,
        loop_cond: helper.next_expr(Expr::Literal(LiteralValue::Boolean(CelBool::from(false)))),
        loop_step: helper.next_expr(Expr::Ident(accu_var.clone())),
        accu_var,
        result,
    };
    Ok(Some(helper.next_expr(Expr::Comprehension(Box::new(fold)))))
}

/// The variable `device`.
fn subject<'v>(device: &'v Device, driver: &'v str) -> Result<CelMap<'v>, String> {
    let mut attributes = Domains::default();
    for ((domain, name), attribute) in &device.attributes {
        let value: Box<dyn Val + 'v> = match attribute {
            Attribute::Int(int) => Box::new(CelInt::from(*int)),
            Attribute::Bool(bool) => Box::new(CelBool::from(*bool)),
            Attribute::Text(text) => Box::new(CelString::from(&**text)),
            Attribute::Version(text) => match Semver::read(text) {
                Some(version) => Box::new(Version(version)),
                None => return Err(format!("attribute {domain}/{name}: {text:?} is no semantic version")),
            },
            Attribute::Unknown => {
                return Err(format!("attribute {domain}/{name}: unsupported attribute value"));
            }
        };
        attributes.insert(domain, name, value);
    }
    let mut capacity = Domains::default();
    for ((domain, name), amount) in &device.capacity {
        capacity.insert(domain, name, Box::new(Quantity(amount.value)));
    }
    let fields: [(&str, Box<dyn Val + 'v>); 4] = [
        ("driver", Box::new(CelString::from(driver))),
        ("allowMultipleAllocations", Box::new(CelBool::from(device.is_shared))),
        ("attributes", Box::new(attributes.closed())),
        ("capacity", Box::new(capacity.closed())),
    ];
    let fields: HashMap<CelMapKey<'v>, Box<dyn Val + 'v>> =
        fields.into_iter().map(|(name, value)| (CelMapKey::from(name), value)).collect();
    Ok(CelMap::from(fields))
}

/// Values by domain and name; a domain that is absent is empty.
#[derive(Debug, Clone, Default)]
struct Domains<'v> {
    open: BTreeMap<&'v str, HashMap<CelMapKey<'v>, Box<dyn Val + 'v>>>,
    closed: BTreeMap<&'v str, CelMap<'v>>,
    empty: CelMap<'v>,
}

impl<'v> Domains<'v> {
    fn insert(&mut self, domain: &'v str, name: &'v str, value: Box<dyn Val + 'v>) {
        self.open.entry(domain).or_default().insert(CelMapKey::from(name), value);
    }

    fn closed(mut self) -> Self {
        let open = std::mem::take(&mut self.open);
        self.closed = open.into_iter().map(|(domain, values)| (domain, CelMap::from(values))).collect();
        self
    }
}

impl Val for Domains<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'w>(&'b self) -> Option<&'b (dyn Indexer + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn clone_as_boxed<'w>(&self) -> Box<dyn Val + 'w>
    where
        Self: 'w,
    {
        Box::new(self.clone())
    }
}

fn domain_of(key: &dyn Val) -> Result<&str, ExecutionError> {
    let text = key.downcast_ref::<CelString<'_>>().map(CelString::inner);
    text.ok_or_else(|| ExecutionError::UnexpectedType {
        got: key.get_type().name().to_owned(),
        want: "string".to_owned(),
    })
}

impl Container for Domains<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.closed.contains_key(domain_of(value)?))
    }
}

impl Indexer for Domains<'_> {
    fn get<'b, 'w>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'w>, ExecutionError>
    where
        Self: 'w,
    {
        Ok(CowVal::Borrowed(self.closed.get(domain_of(key)?).unwrap_or(&self.empty)))
    }

    fn steal<'w>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'w>, ExecutionError>
    where
        Self: 'w,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

/// A quantity, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Quantity(i64);

/// A semantic version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Version(Semver);

/// Makes a type of our own a type of the language.
macro_rules! value {
    ($type:ty, $name:expr) => {
        impl Val for $type {
            fn get_type(&self) -> &Type {
                &$name
            }

            fn cel_type() -> &'static Type {
                &$name
            }

            fn equals(&self, other: &dyn Val) -> bool {
                other.downcast_ref::<$type>().is_some_and(|other| self == other)
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn Any> {
                Some(self)
            }
        }

        impl StaticVal for $type {}
    };
}

value!(Quantity, QUANTITY);
value!(Version, SEMVER);

/// One unit, in thousandths.
const UNIT: i64 = 1_000;

fn quantity(text: &CelString<'_>) -> Result<Quantity, ExecutionError> {
    parse_milli(text.inner()).map(Quantity).map_err(|error| ExecutionError::function_error("quantity", error))
}

fn is_quantity(text: &CelString<'_>) -> CelBool {
    parse_milli(text.inner()).is_ok().into()
}

fn order(order: Ordering) -> CelInt {
    i64::from(order as i8).into()
}

fn quantity_compare(one: &Quantity, other: &Quantity) -> CelInt {
    order(one.cmp(other))
}

fn quantity_above(one: &Quantity, other: &Quantity) -> CelBool {
    (one > other).into()
}

fn quantity_below(one: &Quantity, other: &Quantity) -> CelBool {
    (one < other).into()
}

fn plus(one: &Quantity, other: &Quantity) -> Quantity {
    Quantity(one.0.saturating_add(other.0))
}

fn plus_units(one: &Quantity, units: &CelInt) -> Quantity {
    Quantity(one.0.saturating_add(units.inner().saturating_mul(UNIT)))
}

fn minus(one: &Quantity, other: &Quantity) -> Quantity {
    Quantity(one.0.saturating_sub(other.0))
}

fn minus_units(one: &Quantity, units: &CelInt) -> Quantity {
    Quantity(one.0.saturating_sub(units.inner().saturating_mul(UNIT)))
}

fn sign(one: &Quantity) -> CelInt {
    one.0.signum().into()
}

fn is_integer(one: &Quantity) -> CelBool {
    (one.0 % UNIT == 0).into()
}

fn as_integer(one: &Quantity) -> Result<CelInt, ExecutionError> {
    if one.0 % UNIT == 0 {
        return Ok((one.0 / UNIT).into());
    }
    let error = format!("{} is no integer", format_milli(one.0));
    Err(ExecutionError::function_error("asInteger", error))
}

#[allow(clippy::cast_precision_loss, reason = "what it is for")]
fn as_approximate_float(one: &Quantity) -> CelDouble {
    (one.0 as f64 / UNIT as f64).into()
}

fn version(text: &str, read: fn(&str) -> Option<Semver>) -> Result<Version, ExecutionError> {
    let error = || ExecutionError::function_error("semver", format!("{text:?} is no semantic version"));
    read(text).map(Version).ok_or_else(error)
}

fn reader(lenient: &CelBool) -> fn(&str) -> Option<Semver> {
    if *lenient.inner() { Semver::read_leniently } else { Semver::read }
}

fn semver(text: &CelString<'_>) -> Result<Version, ExecutionError> {
    version(text.inner(), Semver::read)
}

fn semver_if(text: &CelString<'_>, lenient: &CelBool) -> Result<Version, ExecutionError> {
    version(text.inner(), reader(lenient))
}

fn is_semver(text: &CelString<'_>) -> CelBool {
    Semver::read(text.inner()).is_some().into()
}

fn is_semver_if(text: &CelString<'_>, lenient: &CelBool) -> CelBool {
    reader(lenient)(text.inner()).is_some().into()
}

fn version_compare(one: &Version, other: &Version) -> CelInt {
    order(one.cmp(other))
}

fn version_above(one: &Version, other: &Version) -> CelBool {
    (one > other).into()
}

fn version_below(one: &Version, other: &Version) -> CelBool {
    (one < other).into()
}

fn part(version: &Version, at: usize) -> CelInt {
    i64::try_from(version.0.numbers[at]).unwrap_or(i64::MAX).into()
}

fn major(version: &Version) -> CelInt {
    part(version, 0)
}

fn minor(version: &Version) -> CelInt {
    part(version, 1)
}

fn patch(version: &Version) -> CelInt {
    part(version, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What tokio's threads have.
    const STACK: usize = 2 << 20;

    #[test]
    fn the_deepest_expressions_need_no_more_stack_than_threads_have() {
        let deepest = [
            format!("{}true{}", "(".repeat(MAX_DEPTH / 2), ")".repeat(MAX_DEPTH / 2)),
            vec!["1"; MAX_DEPTH].join("+") + " == 1",
            format!("{}1{}", "[".repeat(MAX_DEPTH / 2), "]".repeat(MAX_DEPTH / 2)),
            format!("device{}", "['x']".repeat(MAX_DEPTH - 1)),
            vec!["true"; 2_000].join("&&"),
            vec!["false"; 2_000].join("||"),
        ];
        let ask = move || {
            let device = Device::default();
            for expression in &deepest {
                let program = compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
                let _ = holds(&program, &device, "gpu.test");
            }
        };
        std::thread::Builder::new().stack_size(STACK).spawn(ask).unwrap().join().unwrap();
    }

    #[test]
    fn what_is_deeper_is_refused() {
        let error = compile(&"(".repeat(10_000)).err().unwrap();
        assert!(error.contains("nested too deeply"), "{error}");
    }
}
