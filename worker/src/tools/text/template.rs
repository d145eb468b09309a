//! What a template may say. Fuel bounds how many steps it takes, not how large one step is: `x ~ x` in a loop doubles a text each time.
//! So nothing that a template calculates can get a name, and what builds large values is counted or left out.
use minijinja::{
    Error, ErrorKind,
    machinery::ast::{BinOpKind, CallArg, Expr, Stmt},
};

/// Of `~` and `+`, in the whole template.
const MAX_JOINS: usize = 50;

/// # Errors
/// The first thing that is not allowed, and what to write instead.
pub fn check(template: &Stmt<'_>) -> Result<(), Error> {
    Guard { joins: 0 }.statement(template)
}

struct Guard {
    joins: usize,
}

fn refused<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, why.into()))
}

impl Guard {
    fn statements(&mut self, all: &[Stmt<'_>]) -> Result<(), Error> {
        all.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Result<(), Error> {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr),
            Stmt::IfCond(condition) => {
                self.expression(&condition.expr)?;
                self.statements(&condition.true_body)?;
                self.statements(&condition.false_body)
            }
            Stmt::ForLoop(each) if !each.recursive => {
                self.expression(&each.iter)?;
                each.filter_expr.iter().try_for_each(|filter| self.expression(filter))?;
                self.statements(&each.body)?;
                self.statements(&each.else_body)
            }
            _ => refused("only expressions, if and for (not recursive) are allowed here; pass calculated things in values"),
        }
    }

    fn expressions<'a, 'b: 'a>(&mut self, mut all: impl Iterator<Item = &'a Expr<'b>>) -> Result<(), Error> {
        all.try_for_each(|expression| self.expression(expression))
    }

    fn expression(&mut self, expression: &Expr<'_>) -> Result<(), Error> {
        match expression {
            Expr::Var(_) | Expr::Const(_) => Ok(()),
            Expr::Slice(slice) => {
                self.expression(&slice.expr)?;
                self.expressions([&slice.start, &slice.stop, &slice.step].into_iter().flatten())
            }
            Expr::UnaryOp(operation) => self.expression(&operation.expr),
            Expr::BinOp(operation) => {
                self.operator(operation.op)?;
                self.expression(&operation.left)?;
                self.expression(&operation.right)
            }
            Expr::Compare(compare) => {
                self.expression(&compare.expr)?;
                self.expressions(compare.ops.iter().map(|next| &next.expr))
            }
            Expr::IfExpr(choice) => {
                self.expression(&choice.test_expr)?;
                self.expression(&choice.true_expr)?;
                self.expressions(choice.false_expr.iter())
            }
            Expr::Filter(filter) => {
                self.expressions(filter.expr.iter())?;
                self.arguments(&filter.args)
            }
            Expr::Test(test) => {
                self.expression(&test.expr)?;
                self.arguments(&test.args)
            }
            Expr::GetAttr(get) => self.expression(&get.expr),
            Expr::GetItem(get) => {
                self.expression(&get.expr)?;
                self.expression(&get.subscript_expr)
            }
            Expr::Call(call) => {
                self.expression(&call.expr)?;
                self.arguments(&call.args)
            }
            Expr::List(list) => constant(&list.items),
            Expr::Tuple(tuple) => constant(&tuple.items),
            Expr::Map(map) => constant(&map.keys).and_then(|()| constant(&map.values)),
        }
    }

    fn arguments(&mut self, all: &[CallArg<'_>]) -> Result<(), Error> {
        all.iter().try_for_each(|argument| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) => self.expression(value),
            CallArg::PosSplat(_) | CallArg::KwargSplat(_) => refused("* and ** before an argument are not allowed here"),
        })
    }

    fn operator(&mut self, operator: BinOpKind) -> Result<(), Error> {
        match operator {
            BinOpKind::Mul => return refused("* is not allowed here; write price|multiply(count)"),
            BinOpKind::Concat | BinOpKind::Add => self.joins += 1,
            _ => {}
        }
        if self.joins > MAX_JOINS { refused(format!("~ and + are allowed {MAX_JOINS} times")) } else { Ok(()) }
    }
}

/// A list of variables that is walked gives its parts a name, and so a list of lists of lists.
fn constant(items: &[Expr<'_>]) -> Result<(), Error> {
    if items.iter().all(|item| matches!(item, Expr::Const(_))) {
        return Ok(());
    }
    refused("a list or map in a template holds constants only; pass others in values")
}
