//! A template's text for a notice.

use jiff::Timestamp;

use super::{
    TemplateError,
    functions::Function,
    parse::{Base, Block, Command, Node, Operand, Pipeline},
    value::Value,
    when,
};

/// The longest text, in bytes; a range over a range is not to fill the memory.
const LONGEST: usize = 1 << 20;
/// The most nodes and turns of ranges that are gone through: a notice waits for its text.
const STEPS: usize = 1 << 20;

/// What a template reads.
pub(super) trait Data {
    /// The field of this name.
    fn field(&self, name: &str) -> Option<Value>;
    /// The time that it is.
    fn now(&self) -> Timestamp;
}

/// Why a list of nodes ended early.
enum Leap {
    Break,
    Continue,
    Failed(TemplateError),
}

impl From<TemplateError> for Leap {
    fn from(error: TemplateError) -> Self {
        Self::Failed(error)
    }
}

/// The text that the nodes come to.
pub(super) fn evaluate(nodes: &[Node], data: &dyn Data) -> Result<String, TemplateError> {
    let mut run = Run { data, variables: Vec::new(), out: String::new(), steps: 0 };
    match run.nodes(nodes, &Value::Nil) {
        Err(Leap::Failed(error)) => Err(error),
        _ => Ok(run.out),
    }
}

struct Run<'a> {
    data: &'a dyn Data,
    variables: Vec<(String, Value)>,
    out: String,
    steps: usize,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), Leap> {
        for node in nodes {
            self.step()?;
            match node {
                Node::Text(text) => self.write(text)?,
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    match value {
                        _ if !pipeline.variables.is_empty() => {}
                        Value::Nil => self.write("<no value>")?,
                        value => self.write(&value.printed())?,
                    }
                }
                Node::If(branches) => self.branches(branches, dot)?,
                Node::With(block) => self.with(block, dot)?,
                Node::Range(block) => self.range(block, dot)?,
                Node::Break => return Err(Leap::Break),
                Node::Continue => return Err(Leap::Continue),
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), TemplateError> {
        self.steps += 1;
        if self.steps > STEPS { Err(TemplateError::Run("it takes too long".to_owned())) } else { Ok(()) }
    }

    fn write(&mut self, text: &str) -> Result<(), TemplateError> {
        if self.out.len() + text.len() > LONGEST {
            return Err(TemplateError::Run(format!("the text is longer than {LONGEST} bytes")));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn branches(&mut self, branches: &[(Option<Pipeline>, Vec<Node>)], dot: &Value) -> Result<(), Leap> {
        let scope = self.variables.len();
        for (condition, body) in branches {
            let holds = match condition {
                Some(condition) => self.pipeline(condition, dot)?.is_true(),
                None => true,
            };
            if holds {
                let done = self.nodes(body, dot);
                self.variables.truncate(scope);
                return done;
            }
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn with(&mut self, block: &Block, dot: &Value) -> Result<(), Leap> {
        let scope = self.variables.len();
        let value = self.pipeline(&block.pipeline, dot)?;
        let done =
            if value.is_true() { self.nodes(&block.body, &value) } else { self.nodes(&block.otherwise, dot) };
        self.variables.truncate(scope);
        done
    }

    fn range(&mut self, block: &Block, dot: &Value) -> Result<(), Leap> {
        let scope = self.variables.len();
        let value = self.commands(&block.pipeline, dot)?;
        let entries: Box<dyn Iterator<Item = (Value, Value)>> = match value {
            Value::Nil => Box::new(std::iter::empty()),
            Value::List(items) => Box::new((0..).map(Value::Int).zip(items)),
            Value::Map(entries) => Box::new(entries.into_iter().map(|(key, value)| (key.into(), value))),
            Value::Int(count) => Box::new((0..count).map(|at| (Value::Int(at), Value::Int(at)))),
            other => {
                return Err(
                    TemplateError::Run(format!("range can't iterate over {}", other.printed())).into()
                );
            }
        };
        let mut entries = entries.peekable();
        if entries.peek().is_none() {
            let done = self.nodes(&block.otherwise, dot);
            self.variables.truncate(scope);
            return done;
        }
        for (key, value) in entries {
            self.step()?;
            match &block.pipeline.variables[..] {
                [] => {}
                [one] => self.set(one, value.clone(), block.pipeline.declares),
                [place, one, ..] => {
                    self.set(place, key, block.pipeline.declares);
                    self.set(one, value.clone(), block.pipeline.declares);
                }
            }
            let done = self.nodes(&block.body, &value);
            self.variables.truncate(scope);
            match done {
                Ok(()) | Err(Leap::Continue) => {}
                Err(Leap::Break) => break,
                Err(failed) => return Err(failed),
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: Value, declares: bool) {
        let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        match known.filter(|_| !declares) {
            Some((_, held)) => *held = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            self.set(name, value.clone(), pipeline.declares);
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, piped, dot)?);
        }
        Ok(piped.unwrap_or(Value::Nil))
    }

    fn command(
        &mut self,
        command: &Command,
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        let Command { head, arguments } = command;
        if let Base::Function(function) = head.base
            && matches!(function.name, "and" | "or")
        {
            return self.until(function.name == "and", arguments, piped, dot);
        }
        let mut values = Vec::with_capacity(arguments.len() + 1);
        for argument in arguments {
            values.push(self.operand(argument, &[], dot)?);
        }
        values.extend(piped);
        self.operand(head, &values, dot)
    }

    /// The first that decides, `and` or `or`; those behind it are not asked for.
    fn until(
        &mut self,
        is_and: bool,
        arguments: &[Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        let mut value = Value::Nil;
        for argument in arguments {
            value = self.operand(argument, &[], dot)?;
            if value.is_true() != is_and {
                return Ok(value);
            }
        }
        Ok(piped.unwrap_or(value))
    }

    fn operand(
        &mut self,
        operand: &Operand,
        arguments: &[Value],
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        let (base, fields) = match &operand.base {
            Base::Literal(value) => (value.clone(), &operand.fields[..]),
            Base::Dot => (dot.clone(), &operand.fields[..]),
            Base::Variable(name) => {
                let held = self.variables.iter().rev().find(|(known, _)| known == name);
                (held.map_or(Value::Nil, |(_, value)| value.clone()), &operand.fields[..])
            }
            Base::Pipeline(pipeline) => (self.pipeline(pipeline, dot)?, &operand.fields[..]),
            Base::Function(function) if operand.fields.is_empty() => return self.call(function, arguments),
            Base::Function(function) => (self.call(function, &[])?, &operand.fields[..]),
            Base::Root => {
                let Some((name, rest)) = operand.fields.split_first() else { return Ok(Value::Nil) };
                (self.data.field(name).ok_or_else(|| TemplateError::field(name))?, rest)
            }
        };
        let found = fields.iter().enumerate().try_fold(base, |value, (at, name)| {
            let given = if at + 1 == fields.len() { arguments } else { &[] };
            field_of(&value, name, given)
        })?;
        if fields.is_empty() && !arguments.is_empty() {
            return Err(TemplateError::Run("arguments are given to what is no function".to_owned()));
        }
        Ok(found)
    }

    fn call(&self, function: &Function, arguments: &[Value]) -> Result<Value, TemplateError> {
        let answer = (function.call)(arguments, self.data.now());
        answer.map_err(|why| TemplateError::Run(format!("{}: {why}", function.name)))
    }
}

/// A map's entry, or a method of a time.
fn field_of(value: &Value, name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
    match (value, name, arguments) {
        (Value::Map(entries), _, []) => Ok(entries.get(name).cloned().unwrap_or(Value::Nil)),
        (Value::Time(time), "Format", [Value::Text(layout)]) => Ok(when::formatted(time, layout).into()),
        (Value::Time(time), "Unix", []) => Ok(Value::Int(time.timestamp().as_second())),
        (Value::Time(time), "UTC", []) => Ok(time.timestamp().into()),
        (Value::Time(_), "String", []) => Ok(value.printed().into()),
        (Value::Time(_), "IsZero", []) => Ok(Value::Bool(value.is_zero_time())),
        _ => Err(TemplateError::NoField { of: value.type_name(), name: name.to_owned() }),
    }
}
