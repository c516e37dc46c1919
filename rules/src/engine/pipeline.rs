//! Lists of transformations, kept as a tree: lists with a common start share its nodes, so that a
//! value is transformed once per node and not once per rule.

use super::classes::{Classes, triggers};
use crate::transformation::Transformation;

/// A node of the tree: the list of transformations on the way to it from the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NodeId(pub(super) u16);

/// The empty list.
pub(super) const ROOT: NodeId = NodeId(0);

#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) parent: NodeId,
    /// The last of the list; of the root, without meaning.
    pub(super) transformation: Transformation,
    /// Classes without which the whole list leaves a value unchanged.
    pub(super) triggers: Classes,
}

/// All lists of a rule set.
#[derive(Clone, Debug)]
pub(super) struct Pipelines {
    nodes: Vec<Node>,
}

impl Default for Pipelines {
    fn default() -> Self {
        let root = Node {
            parent: ROOT,
            transformation: Transformation::Lowercase,
            triggers: 0,
        };
        Self { nodes: vec![root] }
    }
}

impl Pipelines {
    /// The node of a list. `None` when there are more lists than numbers for them (65,536).
    pub(super) fn intern(&mut self, list: &[Transformation]) -> Option<NodeId> {
        list.iter().try_fold(ROOT, |parent, &transformation| {
            self.child(parent, transformation)
        })
    }

    fn child(&mut self, parent: NodeId, transformation: Transformation) -> Option<NodeId> {
        let known = self.nodes.iter().enumerate().skip(1);
        let known = known.filter(|(_, n)| n.parent == parent && n.transformation == transformation);
        if let Some(id) = known.map(|(id, _)| id).next() {
            return u16::try_from(id).ok().map(NodeId);
        }
        let id = u16::try_from(self.nodes.len()).ok()?;
        let triggers = self.node(parent).triggers | triggers(transformation);
        self.nodes.push(Node {
            parent,
            transformation,
            triggers,
        });
        Some(NodeId(id))
    }

    pub(super) fn node(&self, id: NodeId) -> Node {
        self.nodes[usize::from(id.0)]
    }

    /// The nodes from the root to `id`, both included.
    pub(super) fn path(&self, id: NodeId) -> Vec<NodeId> {
        let mut path = vec![id];
        let mut at = id;
        while at != ROOT {
            at = self.node(at).parent;
            path.push(at);
        }
        path.reverse();
        path
    }

    /// The list of a node.
    pub(super) fn list(&self, id: NodeId) -> Vec<Transformation> {
        self.path(id)
            .into_iter()
            .skip(1)
            .map(|n| self.node(n).transformation)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Transformation::{Lowercase, UrlDecodeUni};

    #[test]
    fn common_starts_share_nodes() {
        let mut tree = Pipelines::default();
        let a = tree.intern(&[UrlDecodeUni]);
        let b = tree.intern(&[UrlDecodeUni, Lowercase]);
        assert_eq!(tree.intern(&[]), Some(ROOT));
        assert_eq!(tree.intern(&[UrlDecodeUni]), a);
        assert_eq!(b.map(|b| tree.path(b).len()), Some(3));
        assert_eq!(tree.nodes.len(), 3);
    }
}
