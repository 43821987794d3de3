// Package export_pintle_plugin_plugin is the exported interface "plugin", under the name that the bindings give it.
package export_pintle_plugin_plugin

import (
	"wit_component/pintle_plugin_plugin"
	"wit_component/policy"

	witTypes "go.bytecodealliance.org/pkg/wit/types"
)

func Describe() pintle_plugin_plugin.Manifest {
	return policy.Describe()
}

func Configure(config string) witTypes.Result[witTypes.Unit, []pintle_plugin_plugin.ConfigError] {
	if errors := policy.Configure(config); len(errors) > 0 {
		return witTypes.Err[witTypes.Unit](errors)
	}
	return witTypes.Ok[witTypes.Unit, []pintle_plugin_plugin.ConfigError](witTypes.Unit{})
}
