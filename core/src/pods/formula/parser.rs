//! Formulas as trees. Variables, bindings and elements are numbered here, so that nothing is looked up by name later.
//!
//! Operators, their precedence and what may stand where are those of expr-lang 1.17 (`parser/parser.go`,
//! `parser/operator/operator.go`).

use std::sync::Arc;

use super::{
    functions::{Function, Loop},
    lexer::{Kind, SyntaxError, Token},
    value::Value,
};

/// Slots of bindings and loops that a formula may have.
const MAX_SLOTS: usize = 64;
/// Deepest nesting, for the same reason as the limit on tokens.
const MAX_DEPTH: usize = 50;

/// Precedence of `not` and `!`.
const NOT: u8 = 50;
/// Precedence of the signs.
const SIGN: u8 = 90;
/// Precedence of comparisons.
const COMPARISON: u8 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
    In,
    Range,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Coalesce,
}

impl Operator {
    /// The operator, its precedence and that of what is to its right.
    fn of(text: &str) -> Option<(Self, u8, u8)> {
        let (operator, precedence) = match text {
            "or" | "||" => (Self::Or, 10),
            "and" | "&&" => (Self::And, 15),
            "==" => (Self::Equal, COMPARISON),
            "!=" => (Self::NotEqual, COMPARISON),
            "<" => (Self::Less, COMPARISON),
            ">" => (Self::Greater, COMPARISON),
            "<=" => (Self::LessOrEqual, COMPARISON),
            ">=" => (Self::GreaterOrEqual, COMPARISON),
            "in" => (Self::In, COMPARISON),
            ".." => (Self::Range, 25),
            "+" => (Self::Add, 30),
            "-" => (Self::Subtract, 30),
            "*" => (Self::Multiply, 60),
            "/" => (Self::Divide, 60),
            "%" => (Self::Modulo, 60),
            "**" | "^" => return Some((Self::Power, 100, 100)),
            "??" => (Self::Coalesce, 200),
            _ => return None,
        };
        Some((operator, precedence, precedence + 1))
    }

    fn is_order(self) -> bool {
        matches!(self, Self::Less | Self::Greater | Self::LessOrEqual | Self::GreaterOrEqual)
    }
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Constant(Value),
    /// A trigger, by number.
    Variable(usize),
    /// What a binding or a loop put into a slot.
    Slot(usize),
    Array(Vec<Node>),
    Not(Box<Node>),
    Negative(Box<Node>),
    Number(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    /// Condition, then, else.
    Condition(Box<[Node; 3]>),
    /// Slot, its value, what sees it.
    Let(usize, Box<Node>, Box<Node>),
    Index(Box<Node>, Box<Node>),
    Slice(Box<Node>, Option<Box<Node>>, Option<Box<Node>>),
    Call(Function, Vec<Node>),
    Loop(Box<Each>),
}

/// A function that runs a predicate on each element.
#[derive(Debug, Clone)]
pub(super) struct Each {
    pub(super) kind: Loop,
    pub(super) array: Node,
    /// What is computed of each; the element itself without it.
    pub(super) body: Option<Node>,
    /// Where `reduce` begins.
    pub(super) initial: Option<Node>,
    /// Slots of the element, its index and what `reduce` came to so far: this one and the two behind it.
    pub(super) slot: usize,
}

/// A formula as a tree over the variables `names`, and how many slots it needs.
pub(super) fn parse(tokens: &[Token<'_>], names: &[&str]) -> Result<(Node, usize), SyntaxError> {
    let mut parser =
        Parser { tokens, position: 0, names, bindings: Vec::new(), loops: Vec::new(), slots: 0, depth: 0 };
    let node = parser.expression(0)?;
    match parser.peek() {
        Kind::End => Ok((node, parser.slots)),
        _ => Err(parser.unexpected()),
    }
}

struct Parser<'a> {
    tokens: &'a [Token<'a>],
    position: usize,
    names: &'a [&'a str],
    bindings: Vec<(&'a str, usize)>,
    loops: Vec<usize>,
    slots: usize,
    depth: usize,
}

type Parsed = Result<Node, SyntaxError>;

impl<'a> Parser<'a> {
    fn peek(&self) -> &'a Kind<'a> {
        &self.tokens[self.position].kind
    }

    fn at(&self) -> usize {
        self.tokens[self.position].at
    }

    fn advance(&mut self) -> &'a Kind<'a> {
        let kind = self.peek();
        // The last token is the end.
        self.position = (self.position + 1).min(self.tokens.len() - 1);
        kind
    }

    fn accept(&mut self, operator: &str) -> bool {
        let found = *self.peek() == Kind::Operator(operator);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, operator: &str) -> Result<(), SyntaxError> {
        if self.accept(operator) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> SyntaxError {
        let what = match self.peek() {
            Kind::End => "end of formula".to_owned(),
            Kind::Operator(text) | Kind::Name(text) => format!("{text:?}"),
            Kind::Element(text) => format!("\"#{text}\""),
            Kind::Integer(number) => number.to_string(),
            Kind::Float(number) => number.to_string(),
            Kind::Text(text) => format!("string {text:?}"),
        };
        SyntaxError::new(format!("unexpected {what}"), self.at())
    }

    fn slots(&mut self, count: usize) -> Result<usize, SyntaxError> {
        let slot = self.slots;
        self.slots += count;
        if self.slots > MAX_SLOTS {
            return Err(SyntaxError::new("too many variables and predicates", self.at()));
        }
        Ok(slot)
    }

    fn expression(&mut self, precedence: u8) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(SyntaxError::new(
                format!("nested too deeply: more than {MAX_DEPTH} levels"),
                self.at(),
            ));
        }
        let node = self.operators(precedence);
        self.depth -= 1;
        node
    }

    /// An operand and the operators behind it that bind as strongly as `precedence`.
    fn operators(&mut self, precedence: u8) -> Parsed {
        if precedence == 0 && *self.peek() == Kind::Name("let") {
            return self.binding();
        }
        if precedence == 0 && *self.peek() == Kind::Name("if") {
            return self.branches();
        }
        let mut left = self.operand()?;
        let mut coalesced = false;
        loop {
            let (at, position) = (self.at(), self.position);
            let negated = self.accept("not");
            let Kind::Operator(text) = self.peek() else { break };
            if *text == "|" && precedence == 0 && !negated {
                self.advance();
                left = self.pipe(left)?;
                continue;
            }
            let operator = Operator::of(text).filter(|(_, own, _)| *own >= precedence);
            let Some((operator, _, right)) =
                operator.filter(|(operator, ..)| !negated || *operator == Operator::In)
            else {
                self.position = position;
                break;
            };
            self.advance();
            if coalesced && operator != Operator::Coalesce {
                let mixed = "cannot be mixed. Wrap either by parentheses.";
                return Err(SyntaxError::new(
                    format!("Operator ({text}) and coalesce expressions (??) {mixed}"),
                    at,
                ));
            }
            coalesced = operator == Operator::Coalesce;
            let binary = Node::Binary(operator, Box::new(left), Box::new(self.expression(right)?));
            left = if operator.is_order() { self.comparisons(binary)? } else { binary };
            if negated {
                left = Node::Not(Box::new(left));
            }
        }
        if precedence == 0 { self.condition(left) } else { Ok(left) }
    }

    /// `a < b < c` holds if both do.
    fn comparisons(&mut self, mut node: Node) -> Parsed {
        while let Kind::Operator(text) = self.peek()
            && let Some((operator, _, right)) =
                Operator::of(text).filter(|(operator, ..)| operator.is_order())
        {
            self.advance();
            let middle = match &node {
                Node::Binary(Operator::And, _, last) => last,
                other => other,
            };
            let Node::Binary(_, _, middle) = middle else { break };
            let next = Node::Binary(operator, middle.clone(), Box::new(self.expression(right)?));
            node = Node::Binary(Operator::And, Box::new(node), Box::new(next));
        }
        Ok(node)
    }

    fn condition(&mut self, condition: Node) -> Parsed {
        if !self.accept("?") {
            return Ok(condition);
        }
        let then = self.expression(0)?;
        self.expect(":")?;
        let otherwise = self.expression(0)?;
        Ok(Node::Condition(Box::new([condition, then, otherwise])))
    }

    /// `let name = value; …`
    fn binding(&mut self) -> Parsed {
        self.advance();
        let Kind::Name(name) = self.peek() else { return Err(self.unexpected()) };
        let at = self.at();
        self.advance();
        if self.names.contains(name) || self.bindings.iter().any(|(bound, _)| bound == name) {
            return Err(SyntaxError::new(format!("cannot redeclare variable {name}"), at));
        }
        self.expect("=")?;
        let value = self.expression(0)?;
        self.expect(";")?;
        let slot = self.slots(1)?;
        self.bindings.push((name, slot));
        let body = self.expression(0)?;
        self.bindings.pop();
        Ok(Node::Let(slot, Box::new(value), Box::new(body)))
    }

    /// `if condition { … } else { … }`
    fn branches(&mut self) -> Parsed {
        self.advance();
        let condition = self.expression(1)?;
        let then = self.block()?;
        if *self.advance() != Kind::Name("else") {
            self.position -= 1;
            return Err(self.unexpected());
        }
        let otherwise = if *self.peek() == Kind::Name("if") { self.expression(0)? } else { self.block()? };
        Ok(Node::Condition(Box::new([condition, then, otherwise])))
    }

    fn block(&mut self) -> Parsed {
        self.expect("{")?;
        let node = self.expression(0)?;
        self.expect("}")?;
        Ok(node)
    }

    /// An operand with its signs and what is indexed and sliced of it.
    fn operand(&mut self) -> Parsed {
        if let Kind::Operator(sign @ ("not" | "!" | "-" | "+")) = self.peek() {
            self.advance();
            let is_not = matches!(*sign, "not" | "!");
            let operand = Box::new(self.expression(if is_not { NOT } else { SIGN })?);
            return Ok(match *sign {
                "-" => Node::Negative(operand),
                "+" => Node::Number(operand),
                _ => Node::Not(operand),
            });
        }
        let mut node = self.primary()?;
        while self.accept("[") {
            node = self.index(node)?;
        }
        Ok(node)
    }

    fn index(&mut self, node: Node) -> Parsed {
        let node = Box::new(node);
        let first =
            if *self.peek() == Kind::Operator(":") { None } else { Some(Box::new(self.expression(0)?)) };
        if self.accept(":") {
            let end =
                if *self.peek() == Kind::Operator("]") { None } else { Some(Box::new(self.expression(0)?)) };
            self.expect("]")?;
            return Ok(Node::Slice(node, first, end));
        }
        self.expect("]")?;
        first.map(|first| Node::Index(node, first)).ok_or_else(|| self.unexpected())
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        let constant = match self.advance() {
            Kind::Integer(number) => Value::Integer(*number),
            Kind::Float(number) => Value::Float(*number),
            Kind::Text(text) => Value::Text(Arc::from(text.as_str())),
            Kind::Name("true") => Value::Bool(true),
            Kind::Name("false") => Value::Bool(false),
            Kind::Name("nil") => Value::Nil,
            Kind::Operator("(") => {
                let node = self.expression(0)?;
                self.expect(")")?;
                return Ok(node);
            }
            Kind::Operator("[") => return Ok(Node::Array(self.list("]")?)),
            Kind::Element(name) => return self.element(name, at),
            Kind::Name("$env") => return self.environment(),
            Kind::Name(name) if self.accept("(") => return self.call(name, at, None),
            Kind::Name(name) => return self.variable(name, at),
            Kind::Operator(_) | Kind::End => {
                self.position = self.tokens.partition_point(|token| token.at < at);
                return Err(self.unexpected());
            }
        };
        Ok(Node::Constant(constant))
    }

    fn variable(&self, name: &str, at: usize) -> Parsed {
        if let Some((_, slot)) = self.bindings.iter().find(|(bound, _)| *bound == name) {
            return Ok(Node::Slot(*slot));
        }
        let number = self.names.iter().position(|known| *known == name);
        number.map(Node::Variable).ok_or_else(|| SyntaxError::new(format!("unknown name {name}"), at))
    }

    /// `$env["name"]`, for triggers whose names are no words.
    fn environment(&mut self) -> Parsed {
        self.expect("[")?;
        let at = self.at();
        let Kind::Text(name) = self.advance() else {
            return Err(SyntaxError::new("expected the name of a trigger", at));
        };
        self.expect("]")?;
        self.variable(name, at)
    }

    fn element(&self, name: &str, at: usize) -> Parsed {
        let offset = match name {
            "" => 0,
            "index" => 1,
            "acc" => 2,
            _ => return Err(SyntaxError::new(format!("unknown pointer #{name}"), at)),
        };
        let slot = self.loops.last();
        slot.map(|slot| Node::Slot(slot + offset))
            .ok_or_else(|| SyntaxError::new(format!("cannot use pointer #{name} outside of a predicate"), at))
    }

    /// Expressions between commas, up to and with the closing bracket.
    fn list(&mut self, close: &str) -> Result<Vec<Node>, SyntaxError> {
        let mut nodes = Vec::new();
        while !self.accept(close) {
            if !nodes.is_empty() {
                self.expect(",")?;
                if self.accept(close) {
                    break;
                }
            }
            nodes.push(self.expression(0)?);
        }
        Ok(nodes)
    }

    /// `value | function(…)`
    fn pipe(&mut self, value: Node) -> Parsed {
        let at = self.at();
        let Kind::Name(name) = self.peek() else { return Err(self.unexpected()) };
        self.advance();
        self.expect("(")?;
        self.call(name, at, Some(value))
    }

    /// A call behind its opening bracket, with what was piped in as its first argument.
    fn call(&mut self, name: &str, at: usize, piped: Option<Node>) -> Parsed {
        if let Some(kind) = Loop::of(name) {
            return self.each(kind, piped);
        }
        let function =
            Function::of(name).ok_or_else(|| SyntaxError::new(format!("unknown name {name}"), at))?;
        let mut arguments: Vec<Node> = piped.into_iter().collect();
        arguments.extend(self.list(")")?);
        if function.arity().contains(&arguments.len()) {
            Ok(Node::Call(function, arguments))
        } else {
            let message = format!("wrong number of arguments to call {name}: {}", arguments.len());
            Err(SyntaxError::new(message, at))
        }
    }

    fn each(&mut self, kind: Loop, piped: Option<Node>) -> Parsed {
        let array = if let Some(array) = piped {
            array
        } else {
            let array = self.expression(0)?;
            if *self.peek() != Kind::Operator(")") {
                self.expect(",")?;
            }
            array
        };
        let slot = self.slots(3)?;
        let body = if *self.peek() == Kind::Operator(")") && kind.takes_elements() {
            None
        } else {
            self.loops.push(slot);
            let body = if *self.peek() == Kind::Operator("{") { self.block() } else { self.expression(0) };
            self.loops.pop();
            Some(body?)
        };
        let initial = if kind == Loop::Reduce && self.accept(",") { Some(self.expression(0)?) } else { None };
        self.expect(")")?;
        Ok(Node::Loop(Box::new(Each { kind, array, body, initial, slot })))
    }
}
