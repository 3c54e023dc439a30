//! Places that the configuration names, beside the static ones of a format: a few short paths of keys.
//!
//! They are followed by the same scanner in the same pass. The number and depth of paths are bounded where the
//! configuration is read; the scanners of replies, which have none, are compiled without them.

use std::rc::Rc;

/// Paths of keys from the root object, as a tree; the caller's name for what stands at the end of each.
#[derive(Debug)]
pub struct Paths<F> {
    nodes: Vec<Node<F>>,
}

#[derive(Debug)]
struct Node<F> {
    field: Option<F>,
    children: Vec<(Box<str>, usize)>,
}

impl<F: Copy> Paths<F> {
    /// A tree of the given paths; of two that are the same the last one counts.
    pub fn new<'p>(paths: impl IntoIterator<Item = (&'p [Box<str>], F)>) -> Paths<F> {
        let mut tree = Paths { nodes: vec![Node { field: None, children: Vec::new() }] };
        for (path, field) in paths {
            let end = path.iter().fold(0, |node, key| tree.grow(node, key));
            if let Some(node) = tree.nodes.get_mut(end) {
                node.field = Some(field);
            }
        }
        tree
    }

    fn grow(&mut self, node: usize, key: &str) -> usize {
        if let Some(child) = self.child(node, key.as_bytes()) {
            return child;
        }
        let child = self.nodes.len();
        self.nodes.push(Node { field: None, children: Vec::new() });
        if let Some(node) = self.nodes.get_mut(node) {
            node.children.push((key.into(), child));
        }
        child
    }

    fn child(&self, node: usize, key: &[u8]) -> Option<usize> {
        let children = &self.nodes.get(node)?.children;
        children.iter().find(|(own, _)| own.as_bytes() == key).map(|&(_, child)| child)
    }

    fn field(&self, node: usize) -> Option<F> {
        self.nodes.get(node).and_then(|node| node.field)
    }

    /// The caller's name for the value of a key of the root object.
    pub fn at_root(&self, key: &str) -> Option<F> {
        self.child(0, key.as_bytes()).and_then(|node| self.field(node))
    }
}

/// What a scanner asks about places beside the static ones of a format, and tells of where it is.
pub trait Follow<F> {
    /// A new text begins.
    fn reset(&mut self) {}
    /// The caller's name for the value at hand, if it is wanted.
    fn field(&self) -> Option<F> {
        None
    }
    /// Whether something in the container at hand is wanted.
    fn leads_on(&self) -> bool {
        false
    }
    /// The container at hand is entered.
    fn enter(&mut self, _array: bool) {}
    /// The innermost container ends.
    fn leave(&mut self) {}
    /// A key was read: its value is at hand next.
    fn key(&mut self, _key: &[u8]) {}
}

/// There are none.
impl<F> Follow<F> for () {}

/// How far a scanner has followed some paths: a node for each container it is in, and one for the value at hand.
#[derive(Debug)]
pub struct Cursor<F> {
    paths: Rc<Paths<F>>,
    levels: Vec<Option<usize>>,
    here: Option<usize>,
}

impl<F> Cursor<F> {
    /// At the root.
    pub fn new(paths: Rc<Paths<F>>) -> Cursor<F> {
        Cursor { paths, levels: Vec::new(), here: Some(0) }
    }
}

impl<F: Copy> Follow<F> for Cursor<F> {
    fn reset(&mut self) {
        self.levels.clear();
        self.here = Some(0);
    }

    fn field(&self) -> Option<F> {
        self.here.and_then(|node| self.paths.field(node))
    }

    fn leads_on(&self) -> bool {
        self.here.and_then(|node| self.paths.nodes.get(node)).is_some_and(|node| !node.children.is_empty())
    }

    /// Elements of an array stand at no path.
    fn enter(&mut self, array: bool) {
        self.levels.push(self.here.filter(|_| !array));
        self.here = None;
    }

    fn leave(&mut self) {
        self.levels.pop();
    }

    fn key(&mut self, key: &[u8]) {
        self.here = self.levels.last().copied().flatten().and_then(|node| self.paths.child(node, key));
    }
}

/// Paths that there may be.
impl<F, C: Follow<F>> Follow<F> for Option<C> {
    fn reset(&mut self) {
        if let Some(cursor) = self {
            cursor.reset();
        }
    }

    fn field(&self) -> Option<F> {
        self.as_ref().and_then(C::field)
    }

    fn leads_on(&self) -> bool {
        self.as_ref().is_some_and(C::leads_on)
    }

    fn enter(&mut self, array: bool) {
        if let Some(cursor) = self {
            cursor.enter(array);
        }
    }

    fn leave(&mut self) {
        if let Some(cursor) = self {
            cursor.leave();
        }
    }

    fn key(&mut self, key: &[u8]) {
        if let Some(cursor) = self {
            cursor.key(key);
        }
    }
}
