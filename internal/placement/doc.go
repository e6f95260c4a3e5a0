// Package placement decides on which machine a Space runs.
//
// # Terms
//
//   - A node is a machine that may run Spaces: one whose agent has joined, or the host's own, which has the name [Host].
//   - The words of a Space are the names and labels of the nodes that may run it, the key `on` of its configuration.
//   - A node is available if it is connected and no drain is in force.
//
// # Types
//
// [Choose] is a pure function of a [Space] and the [Node] values that the host knows. The host calls it before each start of a Space, and
// after each change of a node. [CheckMove] judges the command `spacehost space move`. [CheckWord] is the rule of spelling for words.
//
// # Rules of Choose
//
//  1. A Space stays on its node while the node may run it. A suspect node keeps its Spaces, because its connection often returns. A node
//     that joins therefore moves nothing. After a start of the host or the end of the link, it waits for its node until the host gives the node up.
//  2. A node may run a Space if a word matches its name or one of its labels, if it is available, and if it has a Device. A Space without
//     GPU functions needs no Device.
//  3. Of the nodes that may, those that leave within [LeavesSoon] are chosen only if there is no other one.
//  4. Of the others, the one with the most free Slots per Space is chosen, the new Space counted.
//  5. If these are equal, the one with the most free memory.
//  6. If these are equal, the first by a rendezvous hash of Space and node: a node that leaves changes no other choice.
//
// # Failures
//
// If no node may run the Space, Choose returns no node and the reason of each node that matches, as a sentence for the operator. Visitors
// read [Waiting].
package placement
