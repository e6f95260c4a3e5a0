// Package bundle copies the content of a Space's folder to another machine.
//
// # Terms
//
//   - Bundle: the files, folders and symbolic links of a Space's folder that a start needs.
//   - Manifest: the list of them, each with its path and either the SHA-256 hash of its content or the target of a link.
//   - Digest: the SHA-256 hash of a Manifest. Folders with the same content have the same digest.
//   - Store: the folder of the receiving machine. A blob is a content in it, named by its hash. A tree is a folder with the content of
//     a bundle.
//
// # Types and callers
//
// The front calls Scan, with a Cache for each folder, and Send. The node keeps one Store, calls Receive, starts the Space in the tree, and
// calls Store.Release after the Space has ended and Store.Prune at times.
//
// # The stream
//
// One connection carries one bundle. The sender starts:
//
//	sender    magic, digest
//	receiver  "h": the tree exists, the end; or "m": the Manifest is needed
//	sender    Manifest
//	receiver  "w", the entries of which its Store lacks the content
//	sender    for each of them: its content in chunks, then "k": complete, "r": changed while it was read, it follows once more, or
//	          "x" and a reason: given up
//	receiver  "d": the tree exists
//
// Instead of any of its messages, the receiver may send "e" and a reason. Integers are big-endian.
//
// # Trees
//
// A tree that is only read consists of hard links to blobs and is shared by all Spaces with that digest. Its reader must be prevented from
// writing to it by a read-only mount or an overlay. A writable tree consists of copies, and each Receive creates another one.
// A tree is created below incoming and appears with a rename, after its content has reached the disk.
//
// The time of a file's last modification is computed from its hash. Python compares that time and the size to decide whether compiled code
// in an overlay is outdated, so it must differ between two versions of a file.
//
// # Hostile peers
//
// A receiver checks each entry before it acts on any (see Limits for the bounds), and all paths are opened below one os.Root. Memory grows
// with the Manifest, up to Limits.Entries and Limits.NameBytes. A sender opens only the regular files of its Manifest, and sends each of them
// at most twice.
//
// # Failures
//
// An entry that no bundle may contain is an *EntryError, a bundle above a limit a *LimitError, a file that changes while it is read a
// *ChangedError. The failure of the other end is a *PeerError. A connection without progress for 5 minutes fails. After an error the caller
// closes the connection. Verified blobs stay in the Store, so the next Receive continues where this one ended.
package bundle
