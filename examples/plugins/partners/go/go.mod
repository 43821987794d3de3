// The bindings name each other by this module, so it keeps their name. build.py puts the bindings beside these sources,
// and their runtime package into pkg.
module wit_component

go 1.27

require go.bytecodealliance.org/pkg v0.4.0

replace go.bytecodealliance.org/pkg => ./pkg
