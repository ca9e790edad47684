//! The value of a formula's tree. It takes a bounded number of steps, whatever the formula says: whoever may write a
//! ScaledObject may not stop the control plane with it.

use std::sync::Arc;

use super::{
    functions::{Function, Loop},
    parser::{Each, Node, Operator},
    value::{Failure, Value},
};

/// Steps that one evaluation may take: a node, an argument and an element are a step each. A formula of hundreds of
/// triggers takes thousands, and this many take some milliseconds.
const MAX_STEPS: usize = 100_000;

type Evaluated = Result<Value, Failure>;

/// The value of a tree with `slots` slots over the triggers' values.
pub(super) fn evaluate(node: &Node, variables: &[Value], slots: usize) -> Evaluated {
    Evaluator { variables, slots: vec![Value::Nil; slots], steps: 0 }.node(node)
}

struct Evaluator<'a> {
    variables: &'a [Value],
    slots: Vec<Value>,
    steps: usize,
}

impl Evaluator<'_> {
    fn step(&mut self, count: usize) -> Result<(), Failure> {
        self.steps = self.steps.saturating_add(count);
        if self.steps > MAX_STEPS {
            return Err(Failure::new(format!("formula takes more than {MAX_STEPS} steps")));
        }
        Ok(())
    }

    /// Only dispatches: what recurses keeps its frame small.
    fn node(&mut self, node: &Node) -> Evaluated {
        self.step(1)?;
        match node {
            Node::Constant(value) => Ok(value.clone()),
            Node::Variable(number) => Ok(self.variables[*number].clone()),
            Node::Slot(slot) => Ok(self.slots[*slot].clone()),
            Node::Array(nodes) => self.array(nodes),
            Node::Not(node) => self.not(node),
            Node::Negative(node) => self.signed(node, true),
            Node::Number(node) => self.signed(node, false),
            Node::Binary(operator, left, right) => self.binary(*operator, left, right),
            Node::Condition(nodes) => self.condition(nodes),
            Node::Let(slot, value, body) => self.binding(*slot, value, body),
            Node::Index(array, index) => self.index(array, index),
            Node::Slice(array, start, end) => self.slice(array, start.as_deref(), end.as_deref()),
            Node::Call(function, arguments) => self.call(*function, arguments),
            Node::Loop(each) => self.each(each),
        }
    }

    fn nodes(&mut self, nodes: &[Node]) -> Result<Vec<Value>, Failure> {
        nodes.iter().map(|node| self.node(node)).collect()
    }

    fn array(&mut self, nodes: &[Node]) -> Evaluated {
        array_of(self.nodes(nodes)?)
    }

    fn not(&mut self, node: &Node) -> Evaluated {
        Ok(Value::Bool(!self.node(node)?.bool()?))
    }

    fn signed(&mut self, node: &Node, negative: bool) -> Evaluated {
        match self.node(node)? {
            Value::Integer(number) if negative => Ok(Value::Integer(number.wrapping_neg())),
            Value::Float(number) if negative => Ok(Value::Float(-number)),
            other => other.number().map(|_| other),
        }
    }

    fn condition(&mut self, [condition, then, otherwise]: &[Node; 3]) -> Evaluated {
        let holds = self.node(condition)?.bool()?;
        self.node(if holds { then } else { otherwise })
    }

    fn binding(&mut self, slot: usize, value: &Node, body: &Node) -> Evaluated {
        self.slots[slot] = self.node(value)?;
        self.node(body)
    }

    fn index(&mut self, array: &Node, index: &Node) -> Evaluated {
        let array = self.node(array)?;
        let index = self.node(index)?.integer()?;
        array.element(index)?.ok_or_else(|| Failure::new(format!("index out of range: {index}")))
    }

    fn call(&mut self, function: Function, arguments: &[Node]) -> Evaluated {
        let arguments = self.nodes(arguments)?;
        let length = |value: &Value| value.array().map_or(1, |values| values.len());
        let length: usize = arguments.iter().map(length).sum();
        // Comparing and sorting take more than a step an element.
        self.step(length.saturating_mul(length.min(64)))?;
        function.call(&arguments)
    }

    fn slice(&mut self, array: &Node, start: Option<&Node>, end: Option<&Node>) -> Evaluated {
        let array = self.node(array)?;
        self.step(array.array()?.len())?;
        let start = start.map(|node| self.node(node)?.integer()).transpose()?;
        let end = end.map(|node| self.node(node)?.integer()).transpose()?;
        array.slice(start, end)
    }

    fn binary(&mut self, operator: Operator, left: &Node, right: &Node) -> Evaluated {
        let left = self.node(left)?;
        match operator {
            Operator::Or if left.bool()? => return Ok(left),
            Operator::And if !left.bool()? => return Ok(left),
            Operator::Coalesce if left != Value::Nil => return Ok(left),
            _ => {}
        }
        let right = self.node(right)?;
        self.combine(operator, &left, right)
    }

    /// An operator over its operands, the left one not enough for the result.
    fn combine(&mut self, operator: Operator, left: &Value, right: Value) -> Evaluated {
        Ok(Value::Bool(match operator {
            Operator::Or | Operator::And => right.bool()?,
            Operator::Coalesce => return Ok(right),
            Operator::Equal => self.equal(left, &right)?,
            Operator::NotEqual => !self.equal(left, &right)?,
            Operator::In => {
                self.step(right.array()?.len())?;
                right.array()?.contains(left)
            }
            Operator::Less => left.number()? < right.number()?,
            Operator::Greater => left.number()? > right.number()?,
            Operator::LessOrEqual => left.number()? <= right.number()?,
            Operator::GreaterOrEqual => left.number()? >= right.number()?,
            Operator::Range => return self.range(left.integer()?, right.integer()?),
            _ => return arithmetic(operator, left, &right),
        }))
    }

    fn equal(&mut self, left: &Value, right: &Value) -> Result<bool, Failure> {
        if let Value::Array(values) = left {
            self.step(values.len())?;
        }
        Ok(left == right)
    }

    fn range(&mut self, first: i64, last: i64) -> Evaluated {
        let length = last.saturating_sub(first).saturating_add(1);
        self.step(usize::try_from(length).unwrap_or(0))?;
        Ok(Value::Array((first..=last).map(Value::Integer).collect()))
    }

    fn each(&mut self, each: &Each) -> Evaluated {
        let array = self.node(&each.array)?;
        let values = array.array()?;
        match each.kind {
            Loop::Reduce => self.reduce(each, values),
            Loop::Map => {
                let mapped = (0..values.len()).map(|index| self.body(each, values, index));
                array_of(mapped.collect::<Result<_, _>>()?)
            }
            Loop::Sum => (0..values.len()).try_fold(Value::Integer(0), |sum, index| {
                arithmetic(Operator::Add, &sum, &self.body(each, values, index)?)
            }),
            _ => self.search(each, values),
        }
    }

    /// The functions that ask the predicate for true or false.
    fn search(&mut self, each: &Each, values: &[Value]) -> Evaluated {
        let mut holds = Vec::new();
        let backwards = matches!(each.kind, Loop::FindLast | Loop::FindLastIndex);
        let order: Box<dyn Iterator<Item = usize>> =
            if backwards { Box::new((0..values.len()).rev()) } else { Box::new(0..values.len()) };
        for index in order {
            let hit = self.body(each, values, index)?.bool()?;
            match each.kind {
                Loop::All if !hit => return Ok(Value::Bool(false)),
                Loop::Any if hit => return Ok(Value::Bool(true)),
                Loop::None if hit => return Ok(Value::Bool(false)),
                Loop::Find | Loop::FindLast if hit => return Ok(values[index].clone()),
                Loop::FindIndex | Loop::FindLastIndex if hit => return Ok(whole(index)),
                _ if hit => holds.push(index),
                _ => {}
            }
        }
        Ok(match each.kind {
            Loop::All | Loop::None => Value::Bool(true),
            Loop::Any => Value::Bool(false),
            Loop::One => Value::Bool(holds.len() == 1),
            Loop::Filter => Value::Array(holds.into_iter().map(|index| values[index].clone()).collect()),
            Loop::Count => whole(holds.len()),
            _ => Value::Nil,
        })
    }

    fn reduce(&mut self, each: &Each, values: &[Value]) -> Evaluated {
        let (mut so_far, first) = match (&each.initial, values.first()) {
            (Some(initial), _) => (self.node(initial)?, 0),
            (None, Some(value)) => (value.clone(), 1),
            (None, None) => return Err(Failure::new("reduce of empty array with no initial value")),
        };
        for index in first..values.len() {
            self.slots[each.slot + 2] = so_far;
            so_far = self.body(each, values, index)?;
        }
        Ok(so_far)
    }

    /// What the predicate makes of one element.
    fn body(&mut self, each: &Each, values: &[Value], index: usize) -> Evaluated {
        self.step(1)?;
        let Some(body) = &each.body else { return Ok(values[index].clone()) };
        self.slots[each.slot] = values[index].clone();
        self.slots[each.slot + 1] = whole(index);
        self.node(body)
    }
}

/// An array, unless one of its elements is one.
fn array_of(values: Vec<Value>) -> Evaluated {
    match values.iter().find(|value| matches!(value, Value::Array(_))) {
        Some(inner) => Err(Failure::kind("an element that is no array", inner)),
        None => Ok(Value::Array(Arc::from(values))),
    }
}

fn whole(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

#[allow(clippy::cast_precision_loss, reason = "a whole number beyond 2^53 may lose its last digits")]
fn arithmetic(operator: Operator, left: &Value, right: &Value) -> Evaluated {
    if let (Value::Integer(left), Value::Integer(right)) = (left, right) {
        return Ok(match operator {
            Operator::Add => Value::Integer(left.wrapping_add(*right)),
            Operator::Subtract => Value::Integer(left.wrapping_sub(*right)),
            Operator::Multiply => Value::Integer(left.wrapping_mul(*right)),
            Operator::Modulo => Value::Integer(
                left.checked_rem(*right).ok_or_else(|| Failure::new("integer divide by zero"))?,
            ),
            Operator::Divide => Value::Float(*left as f64 / *right as f64),
            _ => Value::Float((*left as f64).powf(*right as f64)),
        });
    }
    let (left, right) = (left.number()?, right.number()?);
    match operator {
        Operator::Add => Ok(Value::Float(left + right)),
        Operator::Subtract => Ok(Value::Float(left - right)),
        Operator::Multiply => Ok(Value::Float(left * right)),
        Operator::Divide => Ok(Value::Float(left / right)),
        Operator::Power => Ok(Value::Float(left.powf(right))),
        _ => Err(Failure::new("invalid operation: % (mismatched types) needs two whole numbers, see int()")),
    }
}
