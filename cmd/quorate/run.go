package main

import (
	"context"
	"errors"
	"log/slog"
)

type member struct{}

func openMember(s *settings, logger *slog.Logger) (*member, error) { return nil, errors.New("wip") }
func (m *member) failed() <-chan error                             { return nil }
func (m *member) stop(ctx context.Context) error                   { return nil }
