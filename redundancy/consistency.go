package redundancy

import (
	"fmt"

	quoratev1 "quorate/proto/quorate/v1"
)

// inconsistencies returns the contradictions between what a generation declares and what is seen at run time (redundancy.md §5). Both sides find them,
// each by its own probes. One stands until a good probe finds that the peer agrees, also while the peer can't be reached: silence is no agreement.
//
// What a peer says under a generation is compared with that generation only. Its ApplicationUri is a fact about it under any.
func (m *Manager) inconsistencies(generation *quoratev1.Generation, set *quoratev1.RedundantSet, self *quoratev1.RedundantServer) (found []string) {
	number := generation.GetNumber()
	note := func(format string, arguments ...any) {
		found = append(found, "invalid topology: "+fmt.Sprintf(format, arguments...))
	}
	if declared := self.GetApplicationUri(); m.applicationURI != "" && declared != m.applicationURI {
		note("generation %d declares ApplicationUri %s, this server's certificate says %s", number, declared, m.applicationURI)
	}
	for _, peer := range peersOf(set, m.member) {
		id := peer.GetMember()
		s, ok := m.probes.seen(id)
		if !ok {
			continue
		}
		if declared := peer.GetApplicationUri(); s.ApplicationURI != "" && s.ApplicationURI != declared {
			note("generation %d declares ApplicationUri %s for %s, which answers as %s", number, declared, id, s.ApplicationURI)
		}
		if s.Generation != number {
			continue
		}
		if s.Role == Primary && self.GetRole() == Primary {
			note("%s claims Primary under generation %d, as this server does", id, number)
		}
		if s.Digest != "" && s.Digest != generation.GetDigest() {
			note("%s has another topology as generation %d: digest %s, not %s", id, number, s.Digest, generation.GetDigest())
		}
	}
	return found
}
