package gradioapi

import (
	"slices"

	"spacehost/internal/shelf"
	"spacehost/queue"
)

// noteUses notes the uploads that a Message of a Session names.
func (h *Handler) noteUses(text []byte, session queue.SessionHash) {
	h.config.Shelf.NoteUses(text, func() queue.SessionHash { return session })
}

// noteCall notes the uploads that the body of a call names. The body names its Session too.
func (h *Handler) noteCall(raw []byte) {
	h.config.Shelf.NoteUses(raw, func() queue.SessionHash {
		var hash *string
		if !parseFields(raw, map[string]any{"session_hash": &hash}) || hash == nil {
			return ""
		}
		return queue.SessionHash(*hash)
	})
}

// Unreferenced returns the uploads that no open Session refers to, the one that was used longest ago first. A Session refers to an
// upload if the user or the browser of the Session has sent it, if a call of the Session names it, or if a result of such a call
// does. Files that the app has created are among them only if the Space is stopped.
func (h *Handler) Unreferenced(stopped bool) ([]shelf.Upload, error) {
	present := h.owners.present()
	all, err := h.config.Shelf.Uploads(h.ctx, stopped)
	return slices.DeleteFunc(all, func(one shelf.Upload) bool { return h.isReferred(one, present) }), err
}

// RemoveUpload removes an upload that Unreferenced has returned. It returns false if the upload was used since, or if a Session
// that refers to it is open again.
func (h *Handler) RemoveUpload(one shelf.Upload) (removed bool, err error) {
	if h.isReferred(one, h.owners.present()) {
		return false, nil
	}
	return h.config.Shelf.Remove(h.ctx, one)
}

// isReferred reports whether an open Session refers to an upload. present are the owners of open Sessions.
func (h *Handler) isReferred(one shelf.Upload, present map[string]bool) bool {
	if one.References == nil {
		return false
	}
	return slices.ContainsFunc(one.References.Sessions, h.config.Queue.IsPresent) ||
		slices.ContainsFunc(one.References.Owners, func(owner string) bool { return present[owner] })
}

// present returns the owners of all open Sessions, as ownerText names them.
func (o *owners) present() map[string]bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	seen, all := map[SessionOwner]bool{}, map[string]bool{}
	for digest, entry := range o.known {
		if entry.SessionOwner != (SessionOwner{}) && !seen[entry.SessionOwner] && o.isPresent(digest) {
			seen[entry.SessionOwner], all[ownerText(entry.SessionOwner)] = true, true
		}
	}
	return all
}
