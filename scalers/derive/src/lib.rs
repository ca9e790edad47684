//! `#[derive(Metadata)]`: parser, schema and documentation of a trigger's parameters from one struct.
//!
//! Each field is a parameter. Its name is the field's in lower camel case; `Option<T>` makes it optional; its doc
//! comment is its documentation. `#[param(…)]` says the rest:
//!
//! | key | meaning |
//! |---|---|
//! | `name = "a;b"` | the name, then aliases |
//! | `from = "meta,env,auth"` | places to look in, in order (default `meta`) |
//! | `default = "5"` | used when the parameter is nowhere |
//! | `exclusive = "a;b"` | at most one of these in a list |
//! | `separator = ";"`, `range = "-"` | of lists and maps (default `,`), of ranges of whole numbers (default none) |
//! | `deprecated = "…"` | an error when set |
//! | `announce = "…"` | a warning when set |
//! | `group` | the field is another such struct, whose parameters are read in place |

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, ExprLit, Field, Fields, Ident, Lit, LitStr, Meta, Result, Type,
};

/// See the crate's documentation.
#[proc_macro_derive(Metadata, attributes(param))]
pub fn metadata(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn expand(input: &DeriveInput) -> Result<Tokens> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "Metadata needs a struct"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, "Metadata needs named fields"));
    };
    let params = fields.named.iter().map(Param::new).collect::<Result<Vec<_>>>()?;
    let parts = params.iter().map(Param::schema);
    let reads = params.iter().map(Param::read);
    let names: Vec<_> = params.iter().map(|param| param.ident).collect();
    let ident = &input.ident;
    Ok(quote! {
        impl crate::metadata::Metadata for #ident {
            const PARAMS: &'static [crate::metadata::Param] = {
                const PARTS: &[&[crate::metadata::Param]] = &[#(#parts),*];
                const ALL: [crate::metadata::Param; crate::metadata::count(PARTS)] =
                    crate::metadata::concat(PARTS);
                &ALL
            };

            fn read(view: &mut crate::metadata::View<'_>) -> Option<Self> {
                // Every field is read before the first `?`, so that all errors come together.
                #(let #names = #reads;)*
                Some(Self { #(#names: #names?),* })
            }
        }
    })
}

/// One field, understood.
struct Param<'a> {
    ident: &'a Ident,
    ty: &'a Type,
    docs: String,
    options: Options,
}

#[derive(Default)]
struct Options {
    group: bool,
    name: Option<String>,
    from: Option<LitStr>,
    default: Option<String>,
    exclusive: Option<String>,
    separator: Option<LitStr>,
    range: Option<LitStr>,
    deprecated: Option<String>,
    announce: Option<String>,
}

impl<'a> Param<'a> {
    fn new(field: &'a Field) -> Result<Self> {
        let Some(ident) = &field.ident else {
            return Err(Error::new_spanned(field, "Metadata needs named fields"));
        };
        let mut options = Options::default();
        for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("param")) {
            options.parse(attribute)?;
        }
        let param = Self { ident, ty: &field.ty, docs: docs(&field.attrs), options };
        if param.docs.is_empty() && !param.options.group {
            return Err(Error::new_spanned(ident, "a parameter needs a doc comment: it is what users read"));
        }
        if param.optional().is_some() && param.options.default.is_some() {
            return Err(Error::new_spanned(
                ident,
                "a parameter with a default is never absent: drop the Option",
            ));
        }
        param.sources()?;
        Ok(param)
    }

    /// `T` of an `Option<T>`.
    fn optional(&self) -> Option<&Type> {
        let Type::Path(path) = self.ty else { return None };
        let last = path.path.segments.last().filter(|segment| segment.ident == "Option")?;
        let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
        match arguments.args.first()? {
            syn::GenericArgument::Type(ty) => Some(ty),
            _ => None,
        }
    }

    fn sources(&self) -> Result<Vec<Tokens>> {
        let Some(from) = &self.options.from else {
            return Ok(vec![quote!(crate::metadata::Source::Metadata)]);
        };
        let source = |name: &str| match name.trim() {
            "meta" => Ok(quote!(crate::metadata::Source::Metadata)),
            "env" => Ok(quote!(crate::metadata::Source::Env)),
            "auth" => Ok(quote!(crate::metadata::Source::Auth)),
            _ => Err(Error::new_spanned(from, "places are meta, env and auth")),
        };
        from.value().split(',').map(source).collect()
    }

    /// A `&[Param]` expression.
    fn schema(&self) -> Tokens {
        let ty = self.ty;
        if self.options.group {
            return quote!(<#ty as crate::metadata::Metadata>::PARAMS);
        }
        let value = self.optional().unwrap_or(ty);
        let names = self.names();
        // `new` has refused what `sources` cannot read.
        let from = self.sources().unwrap_or_default();
        let required = self.optional().is_none() && self.options.default.is_none();
        let default = option(self.options.default.as_ref());
        let exclusive = self.options.exclusive.iter().flat_map(|list| list.split(';'));
        let separator = self.options.separator.as_ref().and_then(first_char).unwrap_or(',');
        let range = option(self.options.range.as_ref().and_then(first_char).as_ref());
        let deprecated = option(self.options.deprecated.as_ref());
        let announce = option(self.options.announce.as_ref());
        let docs = &self.docs;
        quote! {
            &[crate::metadata::Param {
                names: &[#(#names),*],
                from: &[#(#from),*],
                required: #required,
                default: #default,
                kind: <#value as crate::values::FromParam>::KIND,
                choices: <#value as crate::values::FromParam>::CHOICES,
                exclusive: &[#(#exclusive),*],
                separator: #separator,
                range: #range,
                deprecated: #deprecated,
                announce: #announce,
                docs: #docs,
            }]
        }
    }

    /// An `Option<field type>` expression.
    fn read(&self) -> Tokens {
        let ty = self.ty;
        if self.options.group {
            return quote!(<#ty as crate::metadata::Metadata>::read(view));
        }
        let schema = self.schema();
        let method = if self.optional().is_some() { quote!(optional) } else { quote!(required) };
        let value = self.optional().unwrap_or(ty);
        quote! {{
            const PARAM: &crate::metadata::Param = &#schema[0];
            view.#method::<#value>(PARAM)
        }}
    }

    fn names(&self) -> Vec<String> {
        match &self.options.name {
            Some(names) => names.split(';').map(str::to_owned).collect(),
            None => vec![lower_camel(&self.ident.to_string())],
        }
    }
}

impl Options {
    fn parse(&mut self, attribute: &Attribute) -> Result<()> {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("group") {
                self.group = true;
                return Ok(());
            }
            let text: LitStr = meta.value()?.parse()?;
            let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            match key.as_str() {
                "name" => self.name = Some(text.value()),
                "from" => self.from = Some(text),
                "default" => self.default = Some(text.value()),
                "exclusive" => self.exclusive = Some(text.value()),
                "separator" => self.separator = Some(text),
                "range" => self.range = Some(text),
                "deprecated" => self.deprecated = Some(text.value()),
                "announce" => self.announce = Some(text.value()),
                _ => return Err(meta.error("unknown key of #[param(…)]")),
            }
            Ok(())
        })
    }
}

fn option<T: quote::ToTokens>(value: Option<&T>) -> Tokens {
    value.map_or_else(|| quote!(None), |value| quote!(Some(#value)))
}

fn first_char(text: &LitStr) -> Option<char> {
    text.value().chars().next()
}

/// The doc comment, as one paragraph.
fn docs(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) => Some(line.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// `unsafe_ssl` → `unsafeSsl`.
fn lower_camel(snake: &str) -> String {
    let mut words = snake.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::lower_camel;

    #[test]
    fn names_are_lower_camel() {
        for (field, name) in
            [("query", "query"), ("unsafe_ssl", "unsafeSsl"), ("metric_name", "metricName"), ("a_b_c", "aBC")]
        {
            assert_eq!(lower_camel(field), name);
        }
    }
}
