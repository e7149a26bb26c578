package admin

import (
	"net/http"
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// trouble is why something can't be shown or was not done.
type trouble struct {
	Title, Message string
	// Field is which one of what was given is wrong, Reason the stable name of the error; both may be empty.
	Field, Reason string
	// Current is the generation that is current instead of the one that was expected; 0 if that isn't the trouble.
	Current uint64
	// Epoch and Phase are what a partition is at, where it was expected elsewhere or otherwise; empty if that isn't the trouble.
	Epoch, Phase string
	// Advice says what to do about it; it may be empty.
	Advice string
	// Code is the status of the answer.
	Code int

	status codes.Code
}

func wrongField(field, message string) *trouble {
	return &trouble{Title: "The form is not right", Field: field, Message: message, Code: http.StatusBadRequest}
}

// Reasons that mean more to who looks than their text does.
const (
	reasonUnknownOutcome = "UNKNOWN_OUTCOME"
	reasonNoLeader       = "NO_LEADER"
	reasonDiverged       = "DIVERGED"
	reasonStaleEpoch     = "STALE_EPOCH"
)

// titles say what a kind of error means for who asked, and what their HTTP status is.
var titles = map[codes.Code]struct {
	title string
	code  int
}{
	codes.InvalidArgument:    {"That is not right", http.StatusBadRequest},
	codes.NotFound:           {"There is no such thing", http.StatusNotFound},
	codes.AlreadyExists:      {"That is there already", http.StatusConflict},
	codes.Aborted:            {"Something was faster", http.StatusConflict},
	codes.FailedPrecondition: {"That can't be done now", http.StatusConflict},
	codes.OutOfRange:         {"That is no longer kept", http.StatusGone},
	codes.PermissionDenied:   {"Your role may not do that", http.StatusForbidden},
	codes.Unauthenticated:    {"It is not known who you are", http.StatusUnauthorized},
	codes.ResourceExhausted:  {"This member has enough to do", http.StatusTooManyRequests},
	codes.Unavailable:        {"The group can't do that now", http.StatusServiceUnavailable},
	codes.DeadlineExceeded:   {"The group didn't answer in time", http.StatusGatewayTimeout},
	codes.Canceled:           {"It was interrupted", http.StatusServiceUnavailable},
}

// troubleOf makes an error of a service fit to be shown.
func troubleOf(err error) *trouble {
	st := status.Convert(err)
	t := &trouble{Title: "Something went wrong", Message: st.Message(), Code: http.StatusInternalServerError, status: st.Code()}
	if known, ok := titles[st.Code()]; ok {
		t.Title, t.Code = known.title, known.code
	}
	for _, detail := range st.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			t.Reason = detail.GetReason()
			// It stays 0 where there is none.
			t.Current, _ = strconv.ParseUint(detail.GetMetadata()["current_generation"], 10, 64)
			t.Epoch, t.Phase = detail.GetMetadata()["current_epoch"], detail.GetMetadata()["phase"]
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				t.Field, t.Message = violation.GetField(), violation.GetDescription()
			}
		}
	}
	switch {
	case t.Current != 0:
		t.Title = "Another generation was published meanwhile"
		t.Advice = "Generation " + strconv.FormatUint(t.Current, 10) + " is current. Nothing was changed. Look at what it brought, and begin a new draft."
	case t.Reason == reasonStaleEpoch:
		t.Title = "The partition has moved on meanwhile"
		t.Advice = "It is at epoch " + t.Epoch + " now, " + t.Phase + ". Nothing was changed. Look at what happened to it, and decide anew."
	case t.Reason == reasonUnknownOutcome:
		t.Title, t.Code = "It is not known whether that was done", http.StatusServiceUnavailable
		t.Advice = "Send the form again as it is: it carries the same request id, so it is done once at most, and the answer tells what became of it."
	case t.Reason == reasonNoLeader:
		t.Title = "There is no leader"
		t.Advice = "No change can be made until a majority of the voters is back. Nothing was changed."
	case t.Reason == reasonDiverged:
		t.Title = "This member is out of service"
		t.Advice = "Its state was found to differ from the other members'. Look at another member's page."
	}
	return t
}

// invalid and notFound are what the page itself finds wrong, in the form in which the services say it.
func invalid(field, message string) error { return refusal(codes.InvalidArgument, field, message) }

func notFound(field, message string) error { return refusal(codes.NotFound, field, message) }

func refusal(code codes.Code, field, message string) error {
	st, err := status.New(code, message).WithDetails(&errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: message}},
	})
	if err != nil {
		// Text that doesn't encode shall not cost the code.
		return status.Error(code, field+" is wrong")
	}
	return st.Err()
}

// again tells whether the same form may be sent once more: what it asks for was not refused.
func (t *trouble) again() bool {
	switch t.status {
	case codes.Unknown, codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal, codes.ResourceExhausted:
		return true
	}
	return t.Reason == reasonUnknownOutcome
}

// fail answers with nothing but what is wrong.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, t *trouble) {
	if inDialog(r) {
		s.write(w, r, t.Code, "confirmation", confirmation{plan: plan{Title: t.Title, Back: root}, Trouble: t, Dialog: true})
		return
	}
	l := s.layout(r, t.Title)
	l.Trouble = t
	s.write(w, r, t.Code, "page", l)
}
