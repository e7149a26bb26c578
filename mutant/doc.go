// Package mutant names the rules that a program built with the tag mutant may break, one at a time, so that the chaos tests can prove that their checks
// notice. In every other build all of them are constants, false, and the compiler drops what stands behind them: the product has no such switch.
//
// The environment variable MUTANT of such a build chooses the rule by its name. `make chaos-mutants` runs each of them.
//
// The simulator breaks rules from outside, around the real code (sim.Mutant, sim.GateMutant). A process has no outside that could do so.
package mutant
