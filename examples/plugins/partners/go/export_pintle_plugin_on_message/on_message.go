// Package export_pintle_plugin_on_message is the exported interface "on-message", under the name that the bindings give
// it.
package export_pintle_plugin_on_message

import (
	"wit_component/pintle_plugin_types"
	"wit_component/policy"
)

func Handle() pintle_plugin_types.Verdict {
	return policy.OnMessage()
}
