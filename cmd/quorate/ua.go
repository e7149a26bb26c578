package main

import "github.com/spf13/cobra"

func newUA(o *options) *cobra.Command { return &cobra.Command{Use: "ua", RunE: noVerb} }
