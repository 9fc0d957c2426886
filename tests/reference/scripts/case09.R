source("./scripts/semlib.R"); source("./scripts/sem_check.R")
mk <- function(x,const=TRUE) list(x=x,const=const)
pat_k <- function(K,k) { p<-matrix(1,K,k); if(k>1) for (f in 2:k) p[1:(f-1),f]<-0; p }
src <- readLines("./scripts/case_run.R"); eval(parse(text=src[-1]))
# late starters, scattered holes that depend on the shared regressor, and seven scales
late <- function() { set.seed(61101); N<-220; K<-7; d<-data.frame(row=1:N); d$z<-round(rnorm(N),6); Fm<-matrix(rnorm(N*2),N); sc<-c(1,10,.1,1,3,.3,1)
  L<-cbind(c(.9,.8,-.7,.6,.8,.5,.7),c(0,.6,.5,-.7,.4,-.6,.5)); p<-c(1,2,1,2,1,2,1); eq<-list()
  for(j in 1:K){ xn<-c(); m<-.5+.6*d$z; for(q in seq_len(p[j])) { n<-paste0("x",j,letters[q]); x<-.5*d$z+rnorm(N); d[[n]]<-round(x,6); xn<-c(xn,n); m<-m+(.8-.4*q)*x }
    d[[paste0("y",j)]]<-round(sc[j]*(m+(Fm%*%L[j,])[,1]+sqrt(.5)*rnorm(N)),6); eq[[paste0("y",j)]]<-mk(c("z",xn)) }
  for(j in 3:K) d[[paste0("y",j)]][seq_len(12*(j-2))]<-NA
  for(j in 2:K) d[[paste0("y",j)]][runif(N)<plogis(-2+.9*d$z)]<-NA; list(d=d,eqs=eq) }
# one factor of all nine equations, one of each group of three, 20 % missing at random given the first response
groups <- function() { set.seed(61202); N<-360; K<-9; d<-data.frame(row=1:N); g<-rnorm(N); h<-matrix(rnorm(N*3),N); eq<-list(); lg<-c(.7,.8,.6,.9,.6,.7,.5,.8,.7); lh<-c(.7,.6,.6,.7,-.6,.6,.7,.6,.5)
  for(j in 1:K){ a<-rnorm(N); d[[paste0("x",j)]]<-round(a,6); d[[paste0("y",j)]]<-round(1-a+lg[j]*g+lh[j]*h[,(j-1)%/%3+1]+sqrt(.45)*rnorm(N),6); eq[[paste0("y",j)]]<-mk(paste0("x",j)) }
  z<-scale(d$y1)[,1]; for(j in 2:K) d[[paste0("y",j)]][runif(N)<plogis(-1.6+.8*z)]<-NA; list(d=d,eqs=eq) }
# R's own airquality: 37 days without ozone, 7 without radiation
air <- function() { a<-datasets::airquality; d<-data.frame(row=1:nrow(a),a[,1:4]); names(d)[3]<-"Solar"; d$day<-round((1:nrow(a)-77)/50,6); d$day2<-round(d$day^2,6); d$sept<-as.integer(a$Month==9)
  list(d=d,eqs=list(Ozone=mk(c("day","day2")),Solar=mk(c("day")),Wind=mk(c("day","day2")),Temp=mk(c("day","day2","sept")))) }
std <- function(K,ks) c(list(diagonal=list(s="diagonal")), setNames(lapply(ks,function(k) list(s="factor",pat=pat_k(K,k))),paste0("factor_k",ks)), list(full=list(s="full")))
run_case("case09a_late_starters_K7",late(),std(7,1:2),missing=TRUE,tmb=FALSE,note="simulated: late starters and holes that depend on the shared regressor, scales .1 to 10")
run_case("case09b_bifactor_K9_mar20",groups(),list(bifactor=list(s="factor",pat=cbind(1,kronecker(diag(3),matrix(1,3,1)))),full=list(s="full")),missing=TRUE,tmb=FALSE,note="simulated: one factor of all, one of each group of three; 20 % missing at random given y1 (always observed)")
run_case("case09c_airquality_K4",air(),std(4,1),missing=TRUE,tmb=FALSE,note="real: R's datasets::airquality, ozone and radiation missing on some days, on the day's number, its square and a month")
