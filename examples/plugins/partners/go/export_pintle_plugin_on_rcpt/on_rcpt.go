// Package export_pintle_plugin_on_rcpt is the exported interface "on-rcpt", under the name that the bindings give it.
package export_pintle_plugin_on_rcpt

import (
	"wit_component/pintle_plugin_types"
	"wit_component/policy"
)

func Handle(rcpt pintle_plugin_types.Recipient) pintle_plugin_types.Verdict {
	return policy.OnRcpt(rcpt)
}
