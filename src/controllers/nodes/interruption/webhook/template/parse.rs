//! What the words of a template mean: actions, and the names in them, each of which has to be known.

use super::{
    super::announcement::FIELDS,
    TemplateError,
    functions::{Function, function},
    lexer::{Piece, Word, pieces},
    value::Value,
};

/// How deep actions and parentheses may be in each other.
const DEPTH: usize = 50;

/// A part of a template.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    /// The first whose condition holds; one without a condition is `else`.
    If(Vec<(Option<Pipeline>, Vec<Node>)>),
    With(Block),
    Range(Block),
    Break,
    Continue,
}

/// What is done with a value, or with each of a list.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) pipeline: Pipeline,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands, each of which gets what the one before came to.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    /// Variables that it gives a value; of two the first is the place.
    pub(super) variables: Vec<String>,
    /// Whether they are new.
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

/// A value, or a function with its arguments.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) head: Operand,
    pub(super) arguments: Vec<Operand>,
}

/// A value, and the fields behind it.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Base {
    Literal(Value),
    /// `.`
    Dot,
    /// What the template is about: `$`, and `.` where nothing else is.
    Root,
    Variable(String),
    Function(&'static Function),
    Pipeline(Box<Pipeline>),
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut parser =
        Parser { pieces: pieces(text)?.into_iter(), variables: Vec::new(), within: 0, ranges: 0, depth: 0 };
    match parser.nodes()? {
        (nodes, None) => Ok(nodes),
        (_, Some(stop)) => Err(stop.error("nothing is open that it could end")),
    }
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    /// Those that are declared here.
    variables: Vec<String>,
    /// How many actions there are around in which `.` is another.
    within: usize,
    /// How many ranges there are around.
    ranges: usize,
    depth: usize,
}

/// An action that ends a list of nodes.
struct Stop {
    action: String,
    keyword: String,
    words: Vec<Word>,
}

impl Stop {
    fn error(&self, why: &'static str) -> TemplateError {
        TemplateError::Action(self.action.clone(), why)
    }
}

impl Parser {
    /// Nodes up to an `else` or `end`.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<Stop>), TemplateError> {
        let mut nodes = Vec::new();
        self.depth += 1;
        while let Some(piece) = self.pieces.next() {
            match piece {
                Piece::Text(text) if text.is_empty() => {}
                Piece::Text(text) => nodes.push(Node::Text(text)),
                Piece::Action(action, words) => match words.split_first() {
                    Some((Word::Name(keyword), after)) if matches!(&**keyword, "end" | "else") => {
                        self.depth -= 1;
                        let (keyword, words) = (keyword.clone(), after.to_vec());
                        return Ok((nodes, Some(Stop { action, keyword, words })));
                    }
                    _ => nodes.push(self.action(&action, &words)?),
                },
            }
        }
        self.depth -= 1;
        Ok((nodes, None))
    }

    fn action(&mut self, action: &str, words: &[Word]) -> Result<Node, TemplateError> {
        let error = |why| Err(TemplateError::Action(action.to_owned(), why));
        if self.depth > DEPTH {
            return error("it is too deep in others");
        }
        let keyword = match words.first() {
            Some(Word::Name(name)) => name.as_str(),
            Some(_) => "",
            None => return error("it is empty"),
        };
        let scope = self.variables.len();
        let node = match keyword {
            "if" => self.condition(action, &words[1..])?,
            "with" => self.block(action, &words[1..], false)?,
            "range" => self.block(action, &words[1..], true)?,
            "break" | "continue" if self.ranges == 0 => return error("it is in no range"),
            "break" | "continue" if words.len() > 1 => return error("nothing may follow the keyword"),
            "break" => Node::Break,
            "continue" => Node::Continue,
            "define" | "template" | "block" => return error("there are no templates within a template"),
            _ => return self.whole(action, words).map(Node::Action),
        };
        self.variables.truncate(scope);
        Ok(node)
    }

    /// `if` up to its `end`.
    fn condition(&mut self, action: &str, words: &[Word]) -> Result<Node, TemplateError> {
        let mut branches = Vec::new();
        let mut condition = Some(self.whole(action, words)?);
        loop {
            let scope = self.variables.len();
            let (body, stop) = self.nodes()?;
            self.variables.truncate(scope);
            let is_last = condition.is_none();
            branches.push((condition.take(), body));
            let Some(stop) = stop else {
                return Err(TemplateError::Action(action.to_owned(), "it has no {{ end }}"));
            };
            match (&*stop.keyword, &stop.words[..]) {
                ("end", []) => return Ok(Node::If(branches)),
                ("else", _) if is_last => return Err(stop.error("nothing but {{ end }} may follow an else")),
                ("else", []) => {}
                ("else", [Word::Name(keyword), words @ ..]) if keyword == "if" => {
                    condition = Some(self.whole(&stop.action, words)?);
                }
                _ => return Err(stop.error("it is {{ else }}, {{ else if … }} or {{ end }}")),
            }
        }
    }

    /// `with` or `range` up to its `end`.
    fn block(&mut self, action: &str, words: &[Word], is_range: bool) -> Result<Node, TemplateError> {
        let pipeline = self.whole(action, words)?;
        if pipeline.variables.len() > 1 && !is_range {
            return Err(TemplateError::Action(action.to_owned(), "only a range has two variables"));
        }
        let scope = self.variables.len();
        self.within += 1;
        self.ranges += usize::from(is_range);
        let (body, mut stop) = self.nodes()?;
        self.within -= 1;
        self.ranges -= usize::from(is_range);
        self.variables.truncate(scope);
        let mut otherwise = Vec::new();
        if stop.as_ref().is_some_and(|stop| stop.keyword == "else" && stop.words.is_empty()) {
            (otherwise, stop) = self.nodes()?;
            self.variables.truncate(scope);
        }
        let block = Block { pipeline, body, otherwise };
        match stop {
            None => Err(TemplateError::Action(action.to_owned(), "it has no {{ end }}")),
            Some(stop) if stop.keyword == "end" && stop.words.is_empty() => {
                Ok(if is_range { Node::Range(block) } else { Node::With(block) })
            }
            Some(stop) => Err(stop.error("it is {{ else }} or {{ end }}")),
        }
    }

    /// A pipeline that is all that there is.
    fn whole(&mut self, action: &str, words: &[Word]) -> Result<Pipeline, TemplateError> {
        let mut words = Words { action, rest: words };
        let pipeline = self.pipeline(&mut words)?;
        if words.rest.is_empty() { Ok(pipeline) } else { Err(words.error("a parenthesis is not opened")) }
    }

    fn pipeline(&mut self, words: &mut Words<'_>) -> Result<Pipeline, TemplateError> {
        let (variables, declares) = self.given(words)?;
        let mut commands = Vec::new();
        loop {
            commands.push(self.command(words, !commands.is_empty())?);
            if !words.skip(&Word::Pipe) {
                break;
            }
        }
        if declares {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipeline { variables, declares, commands })
    }

    /// The variables before `:=` or `=`, and whether they are new.
    fn given(&self, words: &mut Words<'_>) -> Result<(Vec<String>, bool), TemplateError> {
        let (names, rest) = match words.rest {
            [Word::Variable(one), Word::Comma, Word::Variable(other), rest @ ..] => {
                (vec![one.clone(), other.clone()], rest)
            }
            [Word::Variable(name), rest @ ..] => (vec![name.clone()], rest),
            _ => return Ok((Vec::new(), false)),
        };
        let declares = match rest.first() {
            Some(Word::Declare) => true,
            Some(Word::Assign) => false,
            _ => return Ok((Vec::new(), false)),
        };
        let unknown = names.iter().find(|name| !declares && !self.variables.contains(name));
        if let Some(name) = unknown {
            return Err(TemplateError::Variable(format!("${name}")));
        }
        words.rest = &rest[1..];
        Ok((names, declares))
    }

    fn command(&mut self, words: &mut Words<'_>, is_piped: bool) -> Result<Command, TemplateError> {
        let Some(head) = self.operand(words)? else { return Err(words.error("a value is missing")) };
        let mut arguments = Vec::new();
        while let Some(argument) = self.operand(words)? {
            arguments.push(argument);
        }
        let given = arguments.len() + usize::from(is_piped);
        match &head.base {
            Base::Function(function) if head.fields.is_empty() => function.check(given)?,
            // Only methods of times take any, and those are behind a field.
            _ if given > 0 && head.fields.is_empty() => {
                return Err(words.error("arguments are given to what is no function"));
            }
            _ => {}
        }
        for argument in &arguments {
            if let Base::Function(function) = &argument.base {
                function.check(0)?;
            }
        }
        Ok(Command { head, arguments })
    }

    fn operand(&mut self, words: &mut Words<'_>) -> Result<Option<Operand>, TemplateError> {
        let Some((first, rest)) = words.rest.split_first() else { return Ok(None) };
        let mut fields = Vec::new();
        let is_root = self.within == 0;
        let base = match first {
            Word::Pipe | Word::Close => return Ok(None),
            Word::Comma | Word::Declare | Word::Assign => return Err(words.error("no variable is before it")),
            Word::Literal(value) => Base::Literal(value.clone()),
            Word::Name(name) => Base::Function(function(name)?),
            Word::Dot if is_root => return Err(words.error("there are only fields of it")),
            Word::Dot => Base::Dot,
            Word::Variable(name) if name.is_empty() => Base::Root,
            Word::Variable(name) if self.variables.contains(name) => Base::Variable(name.clone()),
            Word::Variable(name) => return Err(TemplateError::Variable(format!("${name}"))),
            Word::Field(name, _) => {
                fields.push(name.clone());
                if is_root { Base::Root } else { Base::Dot }
            }
            Word::Open => {
                words.rest = rest;
                self.depth += 1;
                if self.depth > DEPTH {
                    return Err(words.error("it is too deep in parentheses"));
                }
                let inner = self.pipeline(words)?;
                self.depth -= 1;
                if !words.skip(&Word::Close) {
                    return Err(words.error("a parenthesis is not closed"));
                }
                Base::Pipeline(Box::new(inner))
            }
        };
        if *first != Word::Open {
            words.rest = rest;
        }
        while let [Word::Field(name, false), rest @ ..] = words.rest {
            fields.push(name.clone());
            words.rest = rest;
        }
        if matches!(base, Base::Root) {
            let Some(name) = fields.first() else { return Err(words.error("there are only fields of it")) };
            if !FIELDS.iter().any(|(known, _)| known == name) {
                return Err(TemplateError::field(name));
            }
        }
        Ok(Some(Operand { base, fields }))
    }
}

/// The words of an action that are left.
struct Words<'a> {
    action: &'a str,
    rest: &'a [Word],
}

impl Words<'_> {
    fn error(&self, why: &'static str) -> TemplateError {
        TemplateError::Action(self.action.to_owned(), why)
    }

    fn skip(&mut self, word: &Word) -> bool {
        let is_next = self.rest.first() == Some(word);
        if is_next {
            self.rest = &self.rest[1..];
        }
        is_next
    }
}
