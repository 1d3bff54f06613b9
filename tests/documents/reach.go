package documents

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
)

// TestCode is what a test says: all strings in it, and in the functions and constants of
// its package that it uses. It is named as in a mark: "tests/images TestImages", or
// "tests/install TestServer/agent" for one of its steps.
func TestCode(repository, test string) (string, error) {
	dir, name, _ := strings.Cut(test, " ")
	name, step, _ := strings.Cut(name, "/")
	files, err := filepath.Glob(filepath.Join(repository, dir, "*.go"))
	if err != nil {
		return "", err
	}
	c := code{declared: map[string][]ast.Node{}, seen: map[ast.Node]bool{}}
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return "", err
		}
		c.declare(f)
	}
	if !strings.HasPrefix(name, "Test") || len(c.declared[name]) == 0 {
		return "", fmt.Errorf("there is no test %s in %s", name, dir)
	}
	from := c.declared[name][0]
	if step != "" {
		if from = stepOf(from, step); from == nil {
			return "", fmt.Errorf("test %s in %s has no step %q", name, dir, step)
		}
	}
	c.read(from)
	return c.text.String(), nil
}

type code struct {
	declared map[string][]ast.Node // functions, methods, constants and variables of a package
	seen     map[ast.Node]bool
	text     strings.Builder
}

func (c *code) declare(f *ast.File) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			c.declared[d.Name.Name] = append(c.declared[d.Name.Name], d)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if values, ok := spec.(*ast.ValueSpec); ok {
					for _, name := range values.Names {
						c.declared[name.Name] = append(c.declared[name.Name], values)
					}
				}
			}
		}
	}
}

// read takes in a part of the code and all that it names.
func (c *code) read(n ast.Node) {
	if c.seen[n] {
		return
	}
	c.seen[n] = true
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			if text, err := strconv.Unquote(n.Value); err == nil {
				c.text.WriteString(text + "\n")
			}
		case *ast.Ident:
			for _, d := range c.declared[n.Name] {
				c.read(d)
			}
		}
		return true
	})
}

// stepOf finds the step of a test: the call of Run with its name, or the row of a table
// that begins with it.
func stepOf(test ast.Node, name string) (step ast.Node) {
	is := func(all []ast.Expr) bool {
		if len(all) == 0 {
			return false
		}
		literal, ok := all[0].(*ast.BasicLit)
		return ok && strings.ReplaceAll(literal.Value, " ", "_") == strconv.Quote(name)
	}
	ast.Inspect(test, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if is(n.Args) {
				step = n
			}
		case *ast.CompositeLit:
			if is(n.Elts) {
				step = n
			}
		}
		return step == nil
	})
	return step
}
